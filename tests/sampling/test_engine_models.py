"""What a folder of a model tells an engine, and engines that cannot be had."""

import json
import shutil

import pytest
from engine_draws import GREEDY, LIMIT, STORY, draw
from safetensors.torch import load_file, save_file

from tasks.config.settings import Decoding
from tasks.lm.tokens import load_tokenizer
from tasks.models.form import stop_ids
from tasks.sampling.engines import open_engine

pytestmark = pytest.mark.usefixtures("one_thread")


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
