"""Rewards of token ids: batches under a budget, equality with the model alone, and what happens without memory."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    BartForSequenceClassification,
    BertForSequenceClassification,
    BloomForSequenceClassification,
    FNetForSequenceClassification,
    Gemma2ForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralForSequenceClassification,
    Qwen2ForSequenceClassification,
    XLNetForSequenceClassification,
)

from tasks.lm.batches import Sequences, bytes_per_token
from tasks.rewards.heads import head_in_float32
from tasks.rewards.model import CompletionRewards

pytestmark = pytest.mark.usefixtures("one_thread")

PAD, EOS = 0, 2
IDS = st.lists(st.integers(0, 511), max_size=20)  # the pad token among them
PROMPTS = st.lists(IDS, min_size=1, max_size=4)
COMPLETIONS = st.lists(st.tuples(IDS.map(lambda ids: [*ids, EOS]), st.integers(0, 3)), min_size=1, max_size=10)


def alone(model, prompts, completions, prompt_of):
    """Return the rewards by the model's own forward, one sequence at a time: nothing to pad, nothing to share."""
    whole = [[*prompts[of], *ids] for of, ids in zip(prompt_of, completions, strict=True)]
    with torch.inference_mode():
        return np.array([model(input_ids=torch.tensor([ids])).logits[0, 0].item() for ids in whole])


def small(family, **changes):
    """Return a model of a family with random weights."""
    ids = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": EOS}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 1, "vocab_size": 512}
    config = family.config_class(**{**shape, **ids, "initializer_range": 0.3, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return family(config).eval()


@pytest.fixture(scope="module")
def model():
    return small(LlamaForSequenceClassification, intermediate_size=64, num_key_value_heads=2)


# Batches


def test_batches_by_hand():
    prompts, completions = [[1], [1, 1, 1]], [[1], [1] * 4, [1], [1] * 2, [1]]
    sequences = Sequences(prompts, completions, [0, 0, 1, 1, 0])
    assert sequences.size([2, 3]) == 2 * (3 + 2)
    assert sequences.size([0, 3]) == 2 * (3 + 2)
    # The longer prompt first; both fit together only where 5 x (3 + 4) = 35 tokens do.
    assert list(sequences.batches(range(5), 35)) == [[3, 2, 1, 0, 4]]
    assert list(sequences.batches(range(5), 34)) == [[3, 2], [1, 0, 4]]
    # 1 + 4 tokens are over the budget; 2 x (1 + 1) are not.
    assert list(sequences.batches(range(5), 4)) == [[3], [2], [1], [0, 4]]
    assert list(sequences.batches([], 4)) == []


@given(PROMPTS, COMPLETIONS, st.integers(1, 400))
def test_every_completion_is_in_one_batch_within_the_budget(prompts, drawn, budget):
    sequences = Sequences(prompts, [ids for ids, _ in drawn], [of % len(prompts) for _, of in drawn])
    batches = list(sequences.batches(range(len(drawn)), budget))
    assert sorted(i for rows in batches for i in rows) == list(range(len(drawn)))
    assert all(sequences.size(rows) <= budget or len(rows) == 1 for rows in batches)
    for number in set(sequences.prompt_of):  # together where they fit
        own = {i for i, of in enumerate(sequences.prompt_of) if of == number}
        assert sequences.size(sorted(own)) > budget or any(own <= set(rows) for rows in batches)


def test_bytes_of_a_token_by_hand():
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 100}
    # Keys and values: 2 x 3 layers x 2 heads x 16; then 12 x 64 and 3 x 100, of 2 bytes.
    assert bytes_per_token(LlamaConfig(num_key_value_heads=2, **shape), 2) == 2 * (192 + 768 + 300)
    gpt2 = GPT2Config(n_embd=64, n_layer=3, n_head=4)  # 64 keys, and 4 x 64 within its feed-forward layer
    assert bytes_per_token(gpt2, 4) == 4 * (2 * 3 * 64 + 768 + 3 * 256)


# Rewards


@settings(max_examples=60, deadline=None)
@given(prompts=PROMPTS, drawn=COMPLETIONS, budget=st.integers(1, 2000))
@example(prompts=[[5], [5, 6, 7]], drawn=[([EOS], 0), ([EOS], 1), ([PAD, 9, PAD, EOS], 0)], budget=2000)
@example(prompts=[[5, 6], [5, 6]], drawn=[([8, EOS], 0), ([9, EOS], 1), ([8, EOS], 1)], budget=2000)
def test_a_reward_is_that_of_the_model_alone(model, prompts, drawn, budget):
    completions, prompt_of = [ids for ids, _ in drawn], [of % len(prompts) for _, of in drawn]
    rewards = CompletionRewards(model, budget)
    assert rewards.not_shared is None
    expected = alone(model, prompts, completions, prompt_of)
    np.testing.assert_allclose(rewards(prompts, completions, prompt_of), expected, atol=1e-5)
    rewards.not_shared = "to compare"
    np.testing.assert_allclose(rewards(prompts, completions, prompt_of), expected, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        small(MistralForSequenceClassification, sliding_window=6, num_key_value_heads=2, intermediate_size=64),
        small(Gemma2ForSequenceClassification, sliding_window=6, head_dim=8, intermediate_size=64),
        small(GPTNeoXForSequenceClassification, intermediate_size=64),
        small(GPT2ForSequenceClassification),  # positions that are learnt
        small(Qwen2ForSequenceClassification, num_key_value_heads=2, intermediate_size=64),
    ],
    ids=lambda model: type(model).__name__,
)
def test_families_that_share_prompts(model):
    prompts = [[5], list(range(20, 45)), [7, 8, 9]]
    completions, prompt_of = [[6, EOS], [EOS], list(range(50, 70)), [9] * 12, [6, EOS]], [0, 1, 2, 1, 1]
    rewards = CompletionRewards(model, 2000)
    assert rewards.not_shared is None
    expected = alone(model, prompts, completions, prompt_of)
    assert np.diff(np.sort(expected)).min() > 1e-3
    np.testing.assert_allclose(rewards(prompts, completions, prompt_of), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (small(BertForSequenceClassification), "BertForSequenceClassification has no linear head"),
        (small(BloomForSequenceClassification), "BloomModel takes no"),
    ],
)
def test_families_that_do_not_are_scored_whole_and_it_is_said(model, reason, capsys):
    prompts, completions, prompt_of = [[5], list(range(20, 45))], [[6, EOS], [7, EOS], [9] * 12], [0, 1, 1]
    rewards = CompletionRewards(model, 2000)
    assert rewards.not_shared.startswith(reason)
    for _ in range(2):
        found = rewards(prompts, completions, prompt_of)
    np.testing.assert_allclose(found, alone(model, prompts, completions, prompt_of), atol=1e-5)
    assert np.diff(np.sort(found)).min() > 1e-3
    assert capsys.readouterr().out.count(reason) == 1


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            small(BartForSequenceClassification, d_model=32, encoder_layers=1, decoder_layers=1),
            "takes no two of different lengths",
        ),
        (small(FNetForSequenceClassification, intermediate_size=64), "reads the padding"),
        (small(XLNetForSequenceClassification, d_head=8, d_inner=64), "reads the padding"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_families_that_read_the_padding_are_scored_one_by_one(model, reason, capsys):
    prompts, completions, prompt_of = [[5], [*range(20, 45), EOS, 7]], [[6, EOS], [7, EOS], [*[9] * 12, EOS]], [0, 1, 1]
    rewards = CompletionRewards(model, 2000)
    assert reason in rewards.alone
    assert capsys.readouterr().out.count("scored by itself, not in a batch") == 1
    expected = alone(model, prompts, completions, prompt_of)
    assert np.diff(np.sort(expected)).min() > 1e-5
    np.testing.assert_allclose(rewards(prompts, completions, prompt_of), expected, rtol=1e-4)
    assert CompletionRewards(small(BertForSequenceClassification)).alone is None


def test_a_head_that_does_more_than_score_is_left_to_the_model():
    class Doubled(LlamaForSequenceClassification):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            return type(output)(logits=2 * output.logits)

    model = small(Doubled, intermediate_size=64)
    rewards = CompletionRewards(model)
    assert rewards.not_shared == "Doubled's head does more than `score`"
    expected = alone(model, [[5, 6]], [[7, EOS]], [0])
    np.testing.assert_allclose(rewards([[5, 6]], [[7, EOS]], [0]), expected, atol=1e-5)


def holds(model, most, sizes):
    """Let a model run out of memory above so many tokens; note the tokens of each forward pass that fits."""

    def check(module, args, kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        if (tokens := ids.numel()) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(tokens)

    return model.base_model.register_forward_pre_hook(check, with_kwargs=True)


@pytest.mark.parametrize("not_shared", [None, "to compare"])
def test_out_of_memory_halves_the_budget_once_and_for_all(model, capsys, not_shared):
    prompts, prompt_of = [list(range(3, 9)), [5, 6, 7]], [number // 16 for number in range(32)]
    completions = [[*range(10, 20 + number % 5), EOS] for number in range(32)]
    completions = [[100 + number, *ids] for number, ids in enumerate(completions)]
    expected = alone(model, prompts, completions, prompt_of)
    rewards, sizes = CompletionRewards(model, 10_000), []
    rewards.not_shared = not_shared
    hook = holds(model, 100, sizes)
    try:
        np.testing.assert_allclose(rewards(prompts, completions, prompt_of), expected, atol=1e-5)
        budget, said = rewards.budget.tokens, capsys.readouterr().out
        np.testing.assert_allclose(rewards(prompts, completions, prompt_of), expected, atol=1e-5)
    finally:
        hook.remove()
    # 32 x (6 + 16) tokens do not fit; 352, at most 176 and so on are tried.
    assert "out of memory at 704 tokens a batch: going on with 352" in said
    assert budget == rewards.budget.tokens < 352
    assert capsys.readouterr().out == ""
    assert 0 < max(sizes) <= 100


def test_a_sequence_that_does_not_fit_is_named(model):
    rewards = CompletionRewards(model, 100)
    hook = holds(model, 8, [])
    try:
        with pytest.raises(ValueError, match=r"of 15 tokens need more memory than cpu has free: set scoring.dtype"):
            rewards([[5] * 4], [[6, EOS], [7] * 11], [0, 0])
    finally:
        hook.remove()


def test_another_pad_token_changes_nothing(model):
    ids = [[5], [6, 7]], [[5, 6, EOS], list(range(10, 40)), [9, EOS]], [0, 1, 0]
    expected = CompletionRewards(model)(*ids)
    model.config.pad_token_id = 1
    try:
        np.testing.assert_allclose(CompletionRewards(model)(*ids), expected, atol=1e-5)
    finally:
        model.config.pad_token_id = PAD


# bfloat16


def large(dtype, hidden=256):
    """Return a model whose rewards are about 8 to 16, and completions that differ in their last word."""
    model = small(LlamaForSequenceClassification, hidden_size=hidden, intermediate_size=64)
    with torch.no_grad():
        model.score.weight.normal_(0, 0.12, generator=torch.Generator().manual_seed(3))
        state = model.model(torch.tensor([[5, 6, 7, EOS]])).last_hidden_state[0, -1]
        model.score.weight += (11 - model.score.weight @ state)[:, None] * state / state.square().sum()
    return model.to(dtype)


def test_in_bfloat16_rewards_have_no_steps():
    completions = [[number, EOS] for number in range(20, 120)]
    model = large(torch.bfloat16)
    with torch.inference_mode():
        own = model(torch.tensor([[5, 6, 7, *ids] for ids in completions])).logits[:, 0]
    assert own.dtype == torch.bfloat16
    rewards = CompletionRewards(model)
    for reason in (None, "to compare"):
        rewards.not_shared = reason
        found = rewards([[5, 6, 7]], completions, [0] * 100)
        high = found[(found > 8) & (found < 16)]
        assert len(high) > 20
        on_a_step = np.abs(high * 16 - np.round(high * 16)) < 1e-4
        assert on_a_step.mean() < 0.1  # in bfloat16 all of them
        assert len(set(found)) == 100 > len(set(own.tolist()))
        exact = alone(large(torch.float32), [[5, 6, 7]], completions, [0] * 100)
        assert np.abs(found - exact).mean() < 0.2


def test_in_bfloat16_equal_completions_tie():
    completions = [[20, EOS], [21, EOS], [20, EOS], [20, EOS]]
    found = CompletionRewards(large(torch.bfloat16))([[5, 6, 7]], completions, [0] * 4)
    assert found[0] == found[2] == found[3] != found[1]


def test_in_float32_the_head_computes_as_before():
    model = large(torch.float32)
    ids = torch.tensor([[5, 6, 7, 20, EOS], [5, 6, 7, 21, EOS]])
    with torch.inference_mode():
        expected = model(ids).logits
        head_in_float32(model)
        assert torch.equal(model(ids).logits, expected)


def test_the_head_computes_in_float32_under_autocast_and_learns_so():
    model = large(torch.bfloat16)
    head_in_float32(model)
    wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], r=2))
    with torch.autocast("cpu", torch.bfloat16):
        logits = wrapped(torch.tensor([[5, 6, 7, EOS]])).logits
    assert logits.dtype == torch.float32
    logits.sum().backward()
    grads = {name: p.grad for name, p in wrapped.named_parameters() if "modules_to_save" in name}
    assert [grad.dtype for grad in grads.values()] == [torch.float32]
