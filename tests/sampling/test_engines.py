"""Both engines on the real story model: the same greedy story, seeds by prompt, settings."""

import pytest
from engine_draws import GREEDY, STORY, draw

from tasks.config.settings import Decoding
from tasks.sampling.seeded_sampling import seeded_sampling

pytestmark = pytest.mark.usefixtures("one_thread")
RANDOM = Decoding(k=4, temperature=1.0, max_new_tokens=8)


# Greedy


def test_the_story_begins_as_the_model_was_published(engine):
    [[sample]] = draw(engine, GREEDY, [[1]], [0])
    assert sample.completion.startswith(STORY)
    assert sample.finish_reason == "length"
    assert len(sample.token_ids) == 18
    assert 1 not in sample.token_ids[:1]  # the prompt is not repeated


def test_both_engines_tell_the_same_story(vllm, transformers, prompts):
    ours, theirs = (draw(engine, GREEDY, prompts, [0, 0, 0]) for engine in (vllm, transformers))
    assert [row[0].token_ids for row in ours] == [row[0].token_ids for row in theirs]
    assert [row[0].finish_reason for row in ours] == [row[0].finish_reason for row in theirs]


def test_both_engines_give_the_same_text(vllm, transformers, prompts):
    ours, theirs = (draw(engine, GREEDY, prompts, [0, 0, 0]) for engine in (vllm, transformers))
    assert [row[0].completion for row in ours] == [row[0].completion for row in theirs]


@pytest.mark.parametrize(
    "engine",
    ["vllm", "transformers"],
    indirect=True,
)
def test_a_prompt_and_its_completion_read_as_one_text(engine, prompts, tokenizer):
    for ids, [sample] in zip(prompts, draw(engine, GREEDY, prompts, [0] * 3), strict=True):
        whole = tokenizer.decode(ids + sample.token_ids, skip_special_tokens=True)
        assert tokenizer.decode(ids, skip_special_tokens=True) + sample.completion == whole


# Seeds


def test_a_seed_gives_the_same_samples_whatever_else_is_drawn(engine, prompts):
    alone = draw(engine, RANDOM, [prompts[1]], [7])[0]
    among = draw(engine, RANDOM, prompts, [3, 7, 5])[1]
    turned = draw(engine, RANDOM, prompts[::-1], [5, 7, 3])[1]
    assert alone == among == turned
    assert len(alone) == 4
    assert all(1 <= len(sample.token_ids) <= 8 for sample in alone)


def test_the_first_samples_do_not_depend_on_how_many_are_drawn(engine, prompts):
    few, all_, rest = (
        draw(engine, RANDOM.model_copy(update={"k": k}), prompts, [seed + first for seed in (3, 7, 5)])
        for k, first in ((2, 0), (5, 0), (3, 2))
    )
    assert [a + b for a, b in zip(few, rest, strict=True)] == all_


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
    ],
)
def test_seeded_sampling_draws_from_the_distribution(settings, expected):
    import torch

    number = 20_000
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]])).repeat(number, 1)
    for process in seeded_sampling(Decoding(k=1, **settings), range(number), logits.device):
        logits = process(None, logits)
    drawn = torch.bincount(logits.argmax(1), minlength=4) / number
    assert drawn.tolist() == pytest.approx(expected, abs=0.015)  # four standard deviations
    assert [drawn[i] == 0 for i in range(4)] == [p == 0 for p in expected]


def test_another_seed_gives_other_samples(engine, prompts):
    rows = draw(engine, RANDOM, [prompts[1]] * 3, [7, 8, 7])
    assert rows[0] == rows[2] != rows[1]


def test_the_k_samples_of_a_prompt_differ(engine, prompts):
    [samples] = draw(engine, RANDOM, [prompts[1]], [11])
    assert len({tuple(sample.token_ids) for sample in samples}) == 4


def test_samples_are_in_the_order_of_the_prompts(engine, prompts):
    once = draw(engine, GREEDY, prompts, [0] * 3)
    assert draw(engine, GREEDY, prompts[::-1], [0] * 3) == once[::-1]


def test_a_prompt_that_comes_later_changes_nothing(engine, prompts):
    together = draw(engine, RANDOM, prompts, [3, 7, 5])
    engine.add(0, prompts[0], 3, RANDOM.k)
    drawn = dict(engine.step())
    for number, seed in ((1, 7), (2, 5)):
        engine.add(number, prompts[number], seed, RANDOM.k)
    while len(drawn) < 3:
        drawn |= engine.step()
    assert [drawn[number] for number in range(3)] == together


# Settings


def test_max_new_tokens(engine):
    [[short]] = draw(engine, GREEDY.model_copy(update={"max_new_tokens": 5}), [[1]], [0])
    [[long]] = draw(engine, GREEDY, [[1]], [0])
    assert short.token_ids == long.token_ids[:5]
    assert short.finish_reason == "length"


def test_top_k_of_one_is_greedy(engine):
    [[greedy]] = draw(engine, GREEDY, [[1]], [0])
    [samples] = draw(engine, Decoding(k=2, top_k=1, max_new_tokens=18), [[1]], [5])
    assert [sample.token_ids for sample in samples] == [greedy.token_ids] * 2


def test_a_tiny_nucleus_is_greedy(engine):
    [[greedy]] = draw(engine, GREEDY, [[1]], [0])
    [samples] = draw(engine, Decoding(k=2, top_p=1e-6, max_new_tokens=18), [[1]], [5])
    assert [sample.token_ids for sample in samples] == [greedy.token_ids] * 2


@pytest.mark.parametrize("stop", [(" Lily",), ("a little", "Lily"), ("time, th",)])
def test_a_stop_string_ends_the_text_before_it(engine, stop):
    [[sample]] = draw(engine, GREEDY.model_copy(update={"stop": stop}), [[1]], [0])
    [[whole]] = draw(engine, GREEDY, [[1]], [0])
    end = min(place for string in stop if (place := STORY.find(string)) >= 0)
    assert sample.completion == STORY[:end]
    assert sample.finish_reason == "stop"
    assert sample.token_ids == whole.token_ids[: len(sample.token_ids)]
    assert len(sample.token_ids) < 18


def test_both_engines_stop_at_the_same_token(vllm, transformers):
    decoding = GREEDY.model_copy(update={"stop": ("time, th", "Lily")})
    assert draw(vllm, decoding, [[1]], [0]) == draw(transformers, decoding, [[1]], [0])


def test_a_stop_string_that_does_not_come_changes_nothing(engine):
    assert draw(engine, GREEDY.model_copy(update={"stop": ("xyzzy",)}), [[1]], [0]) == draw(engine, GREEDY, [[1]], [0])
