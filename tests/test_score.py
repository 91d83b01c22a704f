"""Scoring: batches under a token budget, rewards that do not depend on the batch, and what stops the stage."""

import math
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from tasks.artifacts import Artifact, Provenance
from tasks.config import ScoringConfig
from tasks.drafts import Draft
from tasks.models import model_files
from tasks.parquet import read_table, table_bytes
from tasks.schemas import SCHEMAS
from tasks.score import RewardModel, check_finite, describe, length_batches, score_completions, score_sequences
from tasks.sections import ModelSource
from tasks.storage import Store
from tasks.tables import GrowingTable, Slice, commit_slices, read_slices
from tasks.tokens import encode_completion, encode_prompt

pytestmark = pytest.mark.usefixtures("one_thread")

PAD, EOS, CONTEXT = 0, 2, 96
SEQUENCES = st.lists(
    st.lists(st.integers(3, 511), min_size=1, max_size=40).map(lambda ids: [*ids, EOS]), min_size=1, max_size=8
)


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


def alone(scorer, sequences):
    """Return the rewards of sequences in batches of one: nothing to pad."""
    return np.concatenate([score_sequences(scorer.model, [ids], 1) for ids in sequences])


# Batches


def test_length_batches_by_hand():
    # Longest first: 5 + 5 = 10 tokens; then 4, 3 padded to 4; then 1.
    batches = [batch.tolist() for batch in length_batches([3, 5, 1, 5, 4], 10)]
    assert batches == [[1, 3], [4, 0], [2]]


def test_a_row_longer_than_the_budget_is_a_batch_of_its_own():
    assert [batch.tolist() for batch in length_batches([50, 2, 60, 2], 10)] == [[2], [0], [1, 3]]


def test_no_rows_make_no_batch():
    assert list(length_batches([], 10)) == []


@given(st.lists(st.integers(0, 30), max_size=50), st.integers(1, 100))
def test_every_row_is_in_one_batch_within_the_budget(lengths, budget):
    batches = [batch.tolist() for batch in length_batches(lengths, budget)]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) * longest <= budget or len(batch) == 1
        assert lengths[batch[0]] == longest
    widths = [lengths[batch[0]] for batch in batches]
    assert widths == sorted(widths, reverse=True)


# Rewards


@settings(max_examples=20, deadline=None)
@given(sequences=SEQUENCES, budget=st.integers(1, 2000), random=st.randoms(use_true_random=False))
def test_a_reward_does_not_depend_on_its_batch_or_place(scorer, sequences, budget, random):
    expected = alone(scorer, sequences)
    places = list(range(len(sequences)))
    random.shuffle(places)
    shuffled = score_sequences(scorer.model, [sequences[place] for place in places], budget)
    np.testing.assert_allclose(shuffled, expected[places], atol=1e-5)


def test_rewards_of_different_texts_differ(scorer):
    rewards = scorer.score([user("Once")] * 4, ["a dog", "a cat", "a dog ran", ""])
    assert np.diff(np.sort(rewards)).min() > 1e-3


def test_the_reward_is_read_at_the_trailing_eos(scorer):
    ids = encode_prompt(scorer.tokenizer, user("Hi")) + encode_completion(scorer.tokenizer, "Hello")
    assert ids[-1] == EOS
    with torch.inference_mode():
        hidden = scorer.model.model(input_ids=torch.tensor([ids])).last_hidden_state
        by_token = scorer.model.score(hidden)[0, :, 0].numpy()
    longer = encode_prompt(scorer.tokenizer, user("a much longer prompt beside it"))
    reward = score_sequences(scorer.model, [ids, longer], 10_000)[0]
    assert reward == pytest.approx(by_token[-1], abs=1e-5)
    assert abs(by_token[-1] - by_token[-2]) > 1e-3


def test_a_pad_token_within_the_text_changes_no_batch(scorer):
    # The story model pads with <unk>, which a text can hold.
    with_unk, other = [5, PAD, 7, PAD, EOS], list(range(10, 40))
    together = score_sequences(scorer.model, [with_unk, other], 1000)
    np.testing.assert_allclose(together, alone(scorer, [with_unk, other]), atol=1e-5)
    assert abs(together[0] - alone(scorer, [[5, 6, 7, 8, EOS]])[0]) > 1e-4


def test_padding_is_masked_from_a_model_that_looks_both_ways():
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=1, initializer_range=0.5, **shape))
    sequences = [[5, 6, EOS], list(range(10, 40)), [9, EOS]]
    together = score_sequences(model.eval(), sequences, 1000)
    alone = np.concatenate([score_sequences(model, [ids], 1) for ids in sequences])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_another_pad_token_changes_nothing(scorer):
    sequences = [[5, 6, EOS], list(range(10, 40)), [9, EOS]]
    expected = score_sequences(scorer.model, sequences, 1000)
    scorer.model.config.pad_token_id = 1
    try:
        np.testing.assert_allclose(score_sequences(scorer.model, sequences, 1000), expected, atol=1e-5)
    finally:
        scorer.model.config.pad_token_id = PAD


def test_the_budget_does_not_change_a_score(folder):
    texts = ["a dog", "a cat sat on the mat and slept", "", "red"] * 3
    prompts = [user(f"Story {number}") for number in range(len(texts))]
    small, large = (RewardModel(folder, ScoringConfig(tokens_per_batch=n)).score(prompts, texts) for n in (1, 9999))
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_a_sequence_longer_than_the_context(scorer):
    with pytest.raises(ValueError, match=rf"tokens, more than the reward model's context of {CONTEXT}: .*max_new_tok"):
        scorer.score([user("Hi")], ["word " * CONTEXT])


def test_describe_by_hand():
    figures = describe(np.array([0.0, 2.0, 2.0, 4.0]))
    assert figures["reward_mean"] == 2
    assert figures["reward_std"] == pytest.approx(math.sqrt(2))
    assert sum(figures["histogram"]["counts"]) == 4
    assert figures["histogram"]["counts"][0] == figures["histogram"]["counts"][-1] == 1
    assert (figures["histogram"]["edges"][0], figures["histogram"]["edges"][-1]) == (0, 4)


# What stops the stage


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_no_numbers_are_named(bad):
    columns = {"prompt_id": ["p", "q", "q"], "completion_id": [0, 0, 7], "reward": [1.0, bad, bad]}
    with pytest.raises(ValueError, match=r"2 rewards are NaN or infinite, first q/0, q/7"):
        check_finite(pa.table(columns))
    check_finite(pa.table({**columns, "reward": [1.0, 2.0, -3.0]}))


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


def test_a_broken_reward_model_stops_the_stage_and_stores_nothing(tmp_path, folder):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    model = LlamaForSequenceClassification.from_pretrained(broken)
    model.score.weight.data.fill_(math.nan)
    model.save_pretrained(broken)
    store = Store(str(tmp_path / "store"))
    slices = [completions(store, {"a": ["a dog", "a cat"]})]
    with pytest.raises(ValueError, match=r"2 rewards are NaN or infinite, first a/0, a/1"):
        score(store, artifact(broken), slices, "a")
    assert store.list("score_completions") == []
    assert store.list("tables") == ["completions"]


def test_prompts_of_a_table_are_the_ones_given(tmp_path):
    assert read_table(prompts(Store(str(tmp_path)), "xy"))["prompt_id"].to_pylist() == ["x", "y"]
