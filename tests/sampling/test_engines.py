"""Both engines on the real story model: the same greedy story, seeds by prompt, stop strings, where a row is cut."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tasks.config.settings import Decoding
from tasks.lm.tokens import load_tokenizer
from tasks.models.form import stop_ids
from tasks.sampling.engines import open_engine
from tasks.sampling.samples import cut
from tasks.sampling.seeded_sampling import seeded_sampling
from tasks.sampling.transformers_engine import TransformersEngine
from tasks.sampling.vllm_engine import VllmEngine, cache_arguments

pytestmark = pytest.mark.usefixtures("one_thread")

STORY = "Once upon a time, there was a little girl named Lily."
GREEDY = Decoding(temperature=0, max_new_tokens=18)
RANDOM = Decoding(k=4, temperature=1.0, max_new_tokens=8)
LIMIT = 96


@pytest.fixture(scope="module")
def tokenizer(test_data):
    return load_tokenizer(test_data / "stories260k")


@pytest.fixture(scope="module")
def vllm(test_data, tmp_path_factory):
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("models") / "run[lr=1e-5]"  # vLLM itself looks for weights by a pattern
    shutil.copytree(test_data / "stories260k", folder, copy_function=shutil.copyfile)
    engine = open_engine(folder, Decoding(engine="auto"), LIMIT)
    assert isinstance(engine, VllmEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def transformers(test_data):
    engine = open_engine(test_data / "stories260k", Decoding(engine="transformers"), LIMIT)
    assert isinstance(engine, TransformersEngine)
    return engine


@pytest.fixture(params=["vllm", "transformers"])
def engine(request):
    """Return each engine; a test sets its own decoding, because vLLM takes seconds to start."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    texts = ["Once upon a time", "Lily saw a", "Tim was a big dog. One day,"]
    return [[1, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]


def draw(engine, decoding, prompts, seeds):
    engine.decoding = decoding
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        engine.add(number, prompt, seed, decoding.k)
    drawn = {}
    while len(drawn) < len(prompts):
        drawn |= engine.step()
    return [drawn[number] for number in range(len(prompts))]


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


# The KV cache

BLOCK = 128 * 5 * 2 * 4 * 32 * 4  # 128 tokens x 5 layers x key and value x 4 heads x 32 dims x 4 bytes


def for_cache(test_data) -> tuple[dict, Decoding]:
    arguments = {"model": str(test_data / "stories260k"), "dtype": "float32", "max_model_len": 512}
    return {**arguments, "enforce_eager": True, "block_size": 128}, Decoding(k=16, max_new_tokens=256)


def test_vllm_works_on_as_many_sequences_as_its_cache_holds(test_data):
    pytest.importorskip("vllm")
    arguments, decoding = for_cache(test_data)
    ten_blocks = 10 * BLOCK
    # A sequence: 256 / 16 tokens of the prompt and 256 / 2 of the completion, two blocks.
    assert cache_arguments({**arguments, "kv_cache_memory_bytes": ten_blocks}, decoding)["max_num_seqs"] == 5
    assert cache_arguments({**arguments, "kv_cache_memory_bytes": 1000 * ten_blocks}, decoding)["max_num_seqs"] == 256
    assert cache_arguments({**arguments, "kv_cache_memory_bytes": 1}, decoding)["max_num_seqs"] == 1


def test_the_cache_on_cpu_holds_every_sequence_or_a_quarter_of_the_memory(test_data, monkeypatch):
    pytest.importorskip("vllm")
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("the cache of a GPU takes what its memory leaves")
    arguments, decoding = for_cache(test_data)
    found = cache_arguments(arguments, decoding)
    assert found == {"max_num_seqs": 256, "kv_cache_memory_bytes": 257 * 4 * BLOCK}
    few = cache_arguments({**arguments, "max_num_seqs": 3}, decoding)
    assert few == {"max_num_seqs": 3, "kv_cache_memory_bytes": 4 * 4 * BLOCK}
    used = current_platform.get_device_total_memory() - 80 * BLOCK
    monkeypatch.setattr(current_platform, "get_current_memory_usage", lambda: used)
    assert cache_arguments(arguments, decoding) == {"max_num_seqs": 10, "kv_cache_memory_bytes": 20 * BLOCK}


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


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_a_token_that_ends_a_completion_is_among_its_ids_and_not_in_its_text(test_data, tmp_path, name):
    # The story model never says EOS, so that "." (426) is made one of its ends here.
    pytest.importorskip(name)
    folder = shutil.copytree(test_data / "stories260k", tmp_path / "model")
    config = folder / "generation_config.json"
    [period] = load_tokenizer(folder).convert_tokens_to_ids(["."])
    config.write_text(config.read_text().replace('"eos_token_id": 2', f'"eos_token_id": [2, {period}]'))
    engine = open_engine(folder, Decoding(engine=name), LIMIT)
    [[sample]] = draw(engine, GREEDY, [[1]], [0])
    engine.close()
    assert sample.completion == STORY.removesuffix(".")
    assert sample.token_ids[-1] == period
    assert sample.finish_reason == "stop"


def test_the_end_of_a_turn_of_the_template_ends_a_completion(test_data, tmp_path):
    # "Lily" is no special token; the template makes it one by ending turns with it.
    folder = shutil.copytree(test_data / "stories260k", tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    [lily] = tokenizer.convert_tokens_to_ids(["\u2581Lily"])
    tokenizer.add_tokens(["\u2581Lily"])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{{ '\u2581Lily' if m.role != 'user' }}\n{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    assert stop_ids(folder, load_tokenizer(folder)) == {2, lily}
    engine = open_engine(folder, Decoding(engine="transformers"), LIMIT)
    [[sample]] = draw(engine, GREEDY, [[1]], [0])
    assert sample.completion == STORY.removesuffix(" Lily.")
    assert (sample.token_ids[-1], sample.finish_reason) == (lily, "stop")


def test_the_length_by_which_a_tokenizer_cuts_its_texts_does_not_count(test_data, tmp_path):
    pytest.importorskip("vllm")
    folder = shutil.copytree(test_data / "stories260k", tmp_path / "model")
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 8}))
    engine = open_engine(folder, Decoding(engine="vllm"), LIMIT)
    [[sample]] = draw(engine, GREEDY, [[1]], [0])
    engine.close()
    assert sample.completion.startswith(STORY)


def test_the_models_own_sampling_defaults_do_not_count(test_data, tmp_path, transformers):
    # vLLM reads none of them where SamplingParams are given, so both engines draw from one distribution.
    folder = shutil.copytree(test_data / "stories260k", tmp_path / "model")
    config = folder / "generation_config.json"
    config.write_text(config.read_text().replace("{", '{"repetition_penalty": 1.8,', 1))
    engine = open_engine(folder, Decoding(engine="transformers"), LIMIT)
    longer = GREEDY.model_copy(update={"max_new_tokens": 36})
    assert draw(engine, longer, [[1]], [0]) == draw(transformers, longer, [[1]], [0])


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_logits_that_are_no_numbers(test_data, tmp_path, name):
    # float16 ends at 65504: both engines would draw token 0, which reads as nothing, again and again.
    pytest.importorskip(name)
    folder = shutil.copytree(test_data / "stories260k", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    large = {key: value * 3000 if "proj" in key else value for key, value in weights.items()}
    save_file(large, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"with sampling.dtype = float16 the policy's logits are NaN.*bfloat16 or"):
        open_engine(folder, Decoding(engine=name, dtype="float16"), LIMIT)
    open_engine(folder, Decoding(engine=name), LIMIT).close()


def test_vllm_that_is_not_installed(test_data, monkeypatch):
    monkeypatch.setattr("tasks.sampling.engines.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"sampling.engine = vllm, but vLLM is not installed: .*transformers"):
        open_engine(test_data / "stories260k", Decoding(engine="vllm"), LIMIT)
    assert open_engine(test_data / "stories260k", Decoding(engine="auto"), LIMIT).name == "transformers"


def test_vllm_for_cuda_where_no_gpu_is_seen(test_data, monkeypatch):
    monkeypatch.setattr("torch.version.cuda", "12.8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert open_engine(test_data / "stories260k", Decoding(engine="auto"), LIMIT).name == "transformers"


# Where a row is cut


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_cut_at_the_limit(tokenizer):
    ids = ids_of(tokenizer, "Once upon a time")
    assert cut(tokenizer, [], ids, {2}, ()) == ("Once upon a time", ids, "length")


def test_cut_after_eos(tokenizer):
    ids = ids_of(tokenizer, "Once upon")
    assert cut(tokenizer, [], [*ids, 2, 0, 0], {2}, ()) == ("Once upon", [*ids, 2], "stop")
    assert cut(tokenizer, [], [2, 0], {2}, ()) == ("", [2], "stop")


def test_cut_before_the_first_stop_string_with_the_tokens_that_show_it(tokenizer):
    ids = ids_of(tokenizer, "Once upon a time there was")
    sample = cut(tokenizer, [], ids, {2}, ("was", "time"))
    assert sample.completion == "Once upon a "
    assert sample.finish_reason == "stop"
    assert tokenizer.decode(sample.token_ids).endswith("time")
    assert "time" not in tokenizer.decode(sample.token_ids[:-1])


def test_a_text_is_not_cleaned(test_data):
    cleans = AutoTokenizer.from_pretrained(test_data / "stories260k", clean_up_tokenization_spaces=True)
    cleans.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    ids = ids_of(cleans, "Once \n . Hm")
    prompt, rest = ids[:-3], ids[-3:]
    assert cleans.decode(ids) == "Once \n. Hm"
    assert cut(cleans, prompt, rest, {2}, ()).completion == cleans.decode(rest, clean_up_tokenization_spaces=False)


def test_a_stop_string_after_eos_does_not_count(tokenizer):
    ids = [*ids_of(tokenizer, "Once"), 2, *ids_of(tokenizer, "upon")]
    assert cut(tokenizer, [], ids, {2}, ("upon",)) == ("Once", ids[: ids.index(2) + 1], "stop")
