"""Scoring: texts to stored rewards, and what stops the stage."""

import math
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from tasks.config.sections import ModelSource
from tasks.config.settings import ScoringConfig
from tasks.import_model import model_files
from tasks.lm.tokens import encode_completion, encode_conversation, encode_prompt
from tasks.rewards.functions import Answer
from tasks.rewards.reward_model import RewardModel
from tasks.rewards.scoring import check_finite
from tasks.rewards.stats import reward_stats
from tasks.score import score_completions
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.parquet import read_table, table_bytes
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices, read_slices

pytestmark = pytest.mark.usefixtures("one_thread")

PAD, EOS, CONTEXT = 0, 2, 96


@pytest.fixture(scope="module")
def folder(test_data, tmp_path_factory):
    """Return a ready reward model: random weights, the story model's tokenizer."""
    path = tmp_path_factory.mktemp("reward_model")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": EOS}
    config = LlamaConfig(vocab_size=512, max_position_embeddings=CONTEXT, num_labels=1, **shape, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(config)
        torch.nn.init.normal_(model.score.weight, std=0.1)
        for layer in model.model.layers.parameters():
            layer.data.mul_(4 if layer.ndim == 2 else 1)  # so that rewards differ by far more than rounding
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(test_data / "stories260k").save_pretrained(path)
    for name, content in model_files(path, ModelSource(path=str(path)), "reward_model").items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def scorer(folder):
    return RewardModel(folder, ScoringConfig())


def artifact(folder):
    return Artifact(kind="model", uri=str(folder), digest=folder.name)


def user(text):
    return [{"role": "user", "content": text}]


# Scores


def test_equal_texts_are_forwarded_once(scorer):
    texts, people = ["a dog", "a cat", "a dog", "a dog"], [user("Hi"), user("Hi"), user("Hi"), user("Ho")]
    asked = []
    rewards = scorer.rewards
    scorer.rewards = lambda *ids: asked.append(ids) or rewards(*ids)
    try:
        found = scorer.score(people, texts)
    finally:
        scorer.rewards = rewards
    [(prompt_ids, completion_ids, prompt_of, _)] = asked
    assert (len(prompt_ids), len(completion_ids), prompt_of) == (2, 3, [0, 0, 1])
    one_by_one = [scorer.score([prompt], [text])[0] for prompt, text in zip(people, texts, strict=True)]
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)
    assert found[0] == found[2] != found[3]


def test_rewards_of_different_texts_differ(scorer):
    rewards = scorer.score([user("Once")] * 4, ["a dog", "a cat", "a dog ran", ""])
    assert np.diff(np.sort(rewards)).min() > 1e-3


def test_the_reward_is_read_at_the_trailing_eos(scorer):
    prompt, completion = encode_prompt(scorer.tokenizer, user("Hi")), encode_completion(scorer.tokenizer, "Hello")
    assert completion[-1] == EOS
    model = scorer.rewards.model
    with torch.inference_mode():
        by_token = model.score(model.model(input_ids=torch.tensor([prompt + completion])).last_hidden_state)[0, :, 0]
    longer = encode_prompt(scorer.tokenizer, user("a much longer prompt beside it"))
    assert scorer.rewards([prompt, longer], [completion, [EOS]], [0, 1])[0] == pytest.approx(
        by_token[-1].item(), abs=1e-5
    )
    assert abs(by_token[-1] - by_token[-2]) > 1e-3


def test_the_side_that_the_tokenizer_pads_on_does_not_matter(folder, tmp_path, scorer):
    left = tmp_path / "left"
    shutil.copytree(folder, left)
    tokenizer = AutoTokenizer.from_pretrained(left)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(left)
    people, texts = [user("Hi"), user("Once upon a time")], ["a dog", ""]
    found = RewardModel(left, ScoringConfig()).score(people, texts)
    np.testing.assert_allclose(found, scorer.score(people, texts), atol=1e-5)


def test_the_budget_does_not_change_a_score(folder):
    texts = ["a dog", "a cat sat on the mat and slept", "", "red"] * 3
    prompts = [user(f"Story {number}") for number in range(len(texts))]
    budgets = (1, 100, None)
    found = [RewardModel(folder, ScoringConfig(tokens_per_batch=n)).score(prompts, texts) for n in budgets]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=1e-5)


def test_in_bfloat16_rewards_are_near_those_in_float32_and_equal_texts_tie(folder, scorer):
    people, texts = [user("Once")] * 5, ["a dog", "a cat", "a dog", "a dog ran", ""]
    found = RewardModel(folder, ScoringConfig(dtype="bfloat16")).score(people, texts)
    exact = scorer.score(people, texts)
    np.testing.assert_allclose(found, exact, rtol=0.05, atol=0.05)
    assert found[0] == found[2]
    assert (found != exact).all()


def test_a_conversation_longer_than_the_context_has_no_reward_and_the_others_keep_theirs(scorer):
    long = "word " * CONTEXT
    found = scorer.score_what_fits([user("Hi")] * 4, ["a dog", long, "a cat", long])
    assert np.ma.getmaskarray(found).tolist() == [False, True, False, True]
    np.testing.assert_allclose(found[[0, 2]], scorer.score([user("Hi")] * 2, ["a dog", "a cat"]), atol=1e-5)
    assert np.ma.getmaskarray(scorer.score_what_fits([user("Hi")], [long])).all()
    with pytest.raises(
        ValueError, match=rf"2 conversations have more tokens than .*context of {CONTEXT}: .*max_new_tok"
    ):
        scorer.score([user("Hi")] * 3, ["a dog", long, long])


def test_the_longest_conversation_that_is_read(scorer):
    texts = ["a" + " a" * number for number in range(CONTEXT)]
    lengths = np.array([len(encode_conversation(scorer.tokenizer, user("Hi"), text)) for text in texts])
    found = scorer.score_what_fits([user("Hi")] * len(texts), texts)
    assert CONTEXT in lengths
    assert (np.ma.getmaskarray(found) == (lengths > CONTEXT)).all()


def test_a_token_that_spans_prompt_and_completion_is_read_as_one(folder):
    # As the template's whole is tokenized: "assistant: " and "Tim" give the token of " Tim".
    scorer = RewardModel(folder, ScoringConfig())
    scorer.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    texts = ["Tim is a dog.", "Tom", "\n"]
    found = scorer.score([user("Who?")] * 3, texts)
    model = scorer.rewards.model
    for text, reward in zip(texts, found, strict=True):
        whole = [*user("Who?"), {"role": "assistant", "content": text}]
        ids = scorer.tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False)
        with torch.inference_mode():
            assert reward == pytest.approx(model(input_ids=torch.tensor([ids])).logits.item(), abs=1e-5)


def test_reward_stats_by_hand():
    figures = reward_stats(np.array([0.0, 2.0, 2.0, 4.0]))
    assert figures["reward_mean"] == 2
    assert figures["reward_std"] == pytest.approx(math.sqrt(2))
    assert sum(figures["histogram"]["counts"]) == 4
    assert figures["histogram"]["counts"][0] == figures["histogram"]["counts"][-1] == 1
    assert (figures["histogram"]["edges"][0], figures["histogram"]["edges"][-1]) == (0, 4)


# What stops the stage


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_no_numbers_are_named(bad):
    answers = [Answer([], "", id=id_) for id_ in ("p/0", "q/0", "q/7")]
    with pytest.raises(ValueError, match=r"2 rewards are NaN or infinite, first q/0, q/7"):
        check_finite(answers, np.array([1.0, bad, bad]))
    check_finite(answers, np.array([1.0, 2.0, -3.0]))


def completions(store, texts, part="part"):
    rows = [
        {
            "prompt_id": prompt_id,
            "completion_id": number,
            "completion": text,
            "token_ids": [5],
            "num_tokens": 1,
            "finish_reason": "stop",
        }
        for prompt_id, drawn in texts.items()
        for number, text in enumerate(drawn)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["completions"])
    return Slice(GrowingTable(store, "completions", Provenance(stage="c", version=1, key="c")).append(part, table))


def prompts(store, ids):
    rows = [{"prompt_id": id_, "messages": user(f"Prompt {id_}"), "source": "s"} for id_ in ids]
    data = table_bytes(pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"]), "prompts")
    draft = Draft(store, Provenance(stage="prompts", version=1, key=f"prompts-{ids}"))
    return draft.commit("prompts", {"rows.parquet": data}, "d", rows=len(rows))


def score(store, reward_model, slices, ids, key="key"):
    drawn = commit_slices(Draft(store, Provenance(stage="sample", version=1, key=key)), "completions", slices, {})
    draft = Draft(store, Provenance(stage="score_completions", version=1, key=key))
    return score_completions.body(draft, reward_model, drawn, prompts(store, ids), ScoringConfig())


def test_rewards_are_stored_by_id_and_only_new_completions_are_scored(tmp_path, folder, scorer):
    store = Store(str(tmp_path))
    first = completions(store, {"a": ["a dog", "a cat"], "b": ["red", "blue"]}, "one")
    once = score(store, artifact(folder), [first], "ab")
    assert once.stats["scored"] == 4
    second = completions(store, {"c": ["green", "red"]}, "two")
    twice = score(store, artifact(folder), [first, second], "abc", "key2")
    assert twice.stats["scored"] == 2
    assert twice.rows == 6
    rows = [row for slice_ in read_slices(store, twice) for row in slice_.read().to_pylist()]
    found = {(row["prompt_id"], row["completion_id"]): row["reward"] for row in rows}
    expected = scorer.score([user("Prompt a"), user("Prompt c"), user("Prompt b")], ["a cat", "green", "red"])
    assert [found["a", 1], found["c", 0], found["b", 0]] == pytest.approx(expected, abs=1e-5)


def test_scoring_says_how_far_it_is_and_the_mean_reward(tmp_path, folder, monkeypatch, capsys):
    monkeypatch.setattr("tasks.pipeline.progress.LINE_SECONDS", 0.0)
    store, long = Store(str(tmp_path)), "word " * CONTEXT
    slices = [completions(store, {"a": ["a dog", "a cat"]}, "one"), completions(store, {"b": ["red", long]}, "two")]
    mean = score(store, artifact(folder), slices, "ab").stats["reward_mean"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("scoring completions: ")]
    assert any(line.startswith("scoring completions: 2 / 4 (50%), ") for line in lines)
    assert lines[-1].startswith("scoring completions: 4 / 4 (100%) in ")
    assert lines[-1].endswith(f", mean reward {mean:.3f}"), "of those that could be read"


def test_completions_that_the_reward_model_has_no_room_for_are_counted_and_kept(tmp_path, folder, monkeypatch):
    said = []
    monkeypatch.setattr("tasks.score.log", said.append)
    store = Store(str(tmp_path))
    drawn = completions(store, {"a": ["a dog", "word " * CONTEXT], "b": ["red", "blue"]})
    once = score(store, artifact(folder), [drawn], "ab")
    assert (once.rows, once.stats["scored"], once.stats["too_long"]) == (4, 4, 1)
    assert sum(once.stats["histogram"]["counts"]) == 3
    assert math.isfinite(once.stats["reward_mean"])
    assert any("1 of 4 completions have no reward and are in no pair" in line for line in said)
    again = score(store, artifact(folder), [drawn], "ab", "key2")
    assert (again.stats["scored"], again.stats["too_long"]) == (0, 1)
    rows = [row for slice_ in read_slices(store, once) for row in slice_.read().to_pylist()]
    assert [(row["prompt_id"], row["completion_id"]) for row in rows if math.isnan(row["reward"])] == [("a", 1)]


def test_a_broken_reward_model_stops_the_stage_and_stores_nothing(tmp_path, folder):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    model = LlamaForSequenceClassification.from_pretrained(broken)
    model.score.weight.data.fill_(3e38)  # near the largest number there is: the sum overflows
    model.save_pretrained(broken)
    store = Store(str(tmp_path / "store"))
    slices = [completions(store, {"a": ["a dog", "a cat"]})]
    with pytest.raises(ValueError, match=r"2 rewards are NaN or infinite, first a/0, a/1"):
        score(store, artifact(broken), slices, "a")
    assert store.list("score_completions") == []
    assert store.list("tables") == ["completions"]


def test_prompts_of_a_table_are_the_ones_given(tmp_path):
    assert read_table(prompts(Store(str(tmp_path)), "xy"))["prompt_id"].to_pylist() == ["x", "y"]
