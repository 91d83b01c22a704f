"""Scoring on vLLM: the rewards of transformers, or an error before anything is scored."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from tasks.config.sections import ModelSource
from tasks.config.settings import ScoringConfig
from tasks.import_model import model_files
from tasks.rewards.engines import check_equal, compared_sequences, on_engine
from tasks.rewards.reward_model import RewardModel
from tasks.rewards.vllm_rewards import VllmRewards

pytestmark = pytest.mark.usefixtures("one_thread")

CONTEXT, VLLM = 160, ScoringConfig(engine="vllm")
PEOPLE = [[{"role": "user", "content": text}] for text in ("Hi", "Tell me of a dog, a cat and a bird. " * 4)]


def write_model(path, tokenizer, **changes):
    """Write a ready reward model that vLLM's CPU kernels can run: heads of 32 dimensions."""
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    given = {"vocab_size": 512, "max_position_embeddings": CONTEXT, "num_labels": 1, **shape, **ids, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(LlamaConfig(**given))
        torch.nn.init.normal_(model.score.weight, std=0.1)
        for layer in model.model.layers.parameters():
            layer.data.mul_(4 if layer.ndim == 2 else 1)  # so that rewards differ by far more than rounding
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(path)
    for name, content in model_files(path, ModelSource(path=str(path)), "reward_model").items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def folder(test_data, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "run[lr=1e-5]", test_data / "stories260k")


def test_vllm_gives_the_rewards_of_transformers(folder):
    pytest.importorskip("vllm")
    asked = [PEOPLE[0], PEOPLE[1], PEOPLE[1], PEOPLE[1], PEOPLE[0], PEOPLE[1], PEOPLE[1]]
    texts = ["a dog", "a cat", "", "a dog ran", "a dog</s> and</s>", "a cat", "word " * CONTEXT]
    model = RewardModel(folder, ScoringConfig())
    expected = model.score_what_fits(asked, texts)
    assert np.ma.getmaskarray(expected).tolist() == [False] * 6 + [True]
    told = []
    with on_engine(model, VLLM):
        assert isinstance(model.rewards, VllmRewards)
        found = model.score_what_fits(asked, texts, told.extend)
        prefix = model.rewards.llm.llm_engine.vllm_config.cache_config
        assert (prefix.enable_prefix_caching, prefix.block_size) == (True, 32)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ma.getmaskarray(found).tolist() == [False] * 6 + [True], "what is too long stays without a reward"
    assert np.diff(np.sort(np.unique(found.compressed()))).min() > 1e-3
    assert len(told) == 5, "the same text of a prompt is scored once"


def test_without_being_asked_for_vllm_does_not_start(folder):
    model = RewardModel(folder, ScoringConfig())
    before = model.rewards
    for engine in ("auto", "transformers"):
        with on_engine(model, ScoringConfig(engine=engine)):
            assert model.rewards is before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "attends otherwise from some length on",
        ),
        ({"num_attention_heads": 8}, "vLLM does not run .*head_dim=8.*: set it to auto or transformers"),
    ],
    ids=["dynamic frequencies", "heads of 8 dimensions, for which the CPU has no kernel"],
)
def test_a_model_that_vllm_cannot_run_is_refused_before_it_scores(test_data, tmp_path, changes, message):
    pytest.importorskip("vllm")
    model = RewardModel(write_model(tmp_path / "model", test_data / "stories260k", **changes), ScoringConfig())
    with pytest.raises(ValueError, match=message), on_engine(model, VLLM):
        pytest.fail("it must not score")


def test_a_head_that_does_more_than_score_the_last_state_is_refused(folder, tmp_path):
    pytest.importorskip("vllm")
    config = BertConfig(
        vocab_size=512, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    config.num_labels, config.max_position_embeddings = 1, CONTEXT
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    message = "here BertForSequenceClassification has no linear head `score` with one output: set it to auto"
    with pytest.raises(ValueError, match=message), on_engine(RewardModel(tmp_path, ScoringConfig()), VLLM):
        pytest.fail("it must not score")


def test_rewards_that_differ_are_refused(folder):
    expected = np.array([1.0, -2.0], np.float32)
    check_equal(expected + 1.9e-4, expected, VLLM)
    check_equal(expected + 0.09, expected, VLLM.model_copy(update={"dtype": "bfloat16"}))
    for wrong in (expected + 2.2e-4, expected + np.nan):
        with pytest.raises(ValueError, match=r"rewards of random texts are up to .* which go up to 2: set it to auto"):
            check_equal(wrong, expected, VLLM)


def test_what_is_compared_shares_a_prompt_and_has_ends_of_turns_within(folder, tmp_path):
    model = RewardModel(folder, ScoringConfig())
    sequences = compared_sequences(model)
    lengths = [len(ids) for ids in sequences.joined().completions]
    assert max(lengths) == CONTEXT
    assert [*sequences.prompt_of].count(0) == 4
    assert len(sequences.prompts[0]) > 32, "more than a block of the cache"
    assert any(2 in ids[:-1] for ids in sequences.completions)
    copy = shutil.copytree(folder, tmp_path / "short")
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 8}))
    short = compared_sequences(RewardModel(copy, ScoringConfig()))
    assert max(len(ids) for ids in short.joined().completions) == 8
