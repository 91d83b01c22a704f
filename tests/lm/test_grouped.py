"""Prompts that are computed once for their completions: the same states, log-probabilities and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_groups import TOKEN, VOCABULARY, neox
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedModel,
    Qwen3Config,
)

from tasks.lm.batches import Sequences
from tasks.lm.layout import Batch, by_completion, last_states_only, lay_out, targets
from tasks.lm.prefix_forward import take_rows, wanted_states
from tasks.lm.sharing import why_not_shared

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED_HEADS = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
WINDOW = {**GROUPED_HEADS, "sliding_window": 4}
FAMILIES = {
    "GPT-NeoX": GPTNeoXConfig(**SMALL),
    "GPT-2": GPT2Config(n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0),
    "OPT": OPTConfig(**{**SMALL, "intermediate_size": 64}, ffn_dim=64, word_embed_proj_dim=32),
    "Phi": PhiConfig(**SMALL),
    "Falcon": FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
    "Llama": LlamaConfig(**GROUPED_HEADS),
    "Qwen3": Qwen3Config(**GROUPED_HEADS),
    "Mistral, window 4": MistralConfig(**WINDOW),
    "Gemma 2, window 4": Gemma2Config(**WINDOW),
}
ROUNDS_TO_FLOAT32 = {"Llama", "Qwen3", "Mistral, window 4", "Gemma 2, window 4"}  # within its norms


def model_of(config) -> PreTrainedModel:
    torch.manual_seed(0)
    config.vocab_size = VOCABULARY
    return AutoModelForCausalLM.from_config(config).eval()


def logps(model: PreTrainedModel, batch: Batch) -> list[torch.Tensor]:
    """Return the log-probability of each completion token, completions in their order."""
    logits = model.get_output_embeddings()(wanted_states(model.base_model, batch))
    tokens = torch.log_softmax(logits, -1).gather(1, targets(batch)[:, None])[:, 0]
    return by_completion(batch, tokens)


def one_by_one(model: PreTrainedModel, prompts, completions, prompt_of) -> list[torch.Tensor]:
    """Compute the same with one plain forward pass a completion."""
    found = []
    for of, completion in zip(prompt_of, completions, strict=True):
        logits = model(torch.tensor([[*prompts[of], *completion]])).logits[0, len(prompts[of]) - 1 : -1]
        found.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(completion)[:, None])[:, 0])
    return found


def gradient(model: PreTrainedModel, tokens: list[torch.Tensor]) -> torch.Tensor:
    """Return the gradient of a sum in which no two completions weigh the same."""
    model.zero_grad()
    sum(weight * own.sum() for weight, own in enumerate(tokens, 1)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


PROMPTS = [[5], [7, 8, 9, 10, 11, 12, 13, 14], [6, 5, 4]]
COMPLETIONS = [[3, 4, 5], [9, 9, 9, 9, 9, 9, 9, 9, 9, 9], [2], [8, 7, 6, 5, 4], [8, 7], [8, 7]]
PROMPT_OF = [1, 1, 0, 2, 2, 2]
BATCH = Sequences(PROMPTS, COMPLETIONS, PROMPT_OF)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_are_those_of_one_pass_a_completion(family, shared):
    model = model_of(FAMILIES[family]).double()
    assert why_not_shared(model) is None
    ours = logps(model, lay_out(BATCH, shared))
    theirs = one_by_one(model, PROMPTS, COMPLETIONS, PROMPT_OF)
    bound = 1e-4 if family in ROUNDS_TO_FLOAT32 else 1e-12
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=bound)
    expected = gradient(model, theirs)
    assert float((gradient(model, ours) - expected).norm() / expected.norm()) < bound


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_the_prompts_and_completions(data):
    model = neox().double()
    prompts = data.draw(st.lists(st.lists(TOKEN, min_size=1, max_size=9), min_size=1, max_size=4))
    completions = data.draw(st.lists(st.lists(TOKEN, min_size=1, max_size=12), min_size=1, max_size=7))
    prompt_of = [data.draw(st.integers(0, len(prompts) - 1)) for _ in completions]
    batch = lay_out(
        Sequences(prompts, completions, prompt_of), shared=True, least_fill=data.draw(st.sampled_from([0.0, 0.75, 1]))
    )
    for own, other in zip(logps(model, batch), one_by_one(model, prompts, completions, prompt_of), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)


def test_a_prompt_is_forwarded_once():
    shared, plain = (lay_out(BATCH, shared) for shared in (True, False))
    # prompts 1 + 8 + 3, of which the last token of each goes with each completion; completions 3 + 10 + 1 + 5 + 2 + 2
    assert shared.tokens == (0 + 7 + 2) + (1 + 1 + 1 + 1 + 1 + 1) + 23
    assert plain.tokens == (8 + 8 + 1 + 3 + 3 + 3) + 23
    own = [bucket.mask for part in shared.parts for bucket in part.buckets]
    assert (
        sum(int(mask.sum()) for mask in [*own, *(part.prefix[1] for part in shared.parts if part.prefix)])
        == shared.tokens
    )
    assert [part.prefix for part in plain.parts] == [None]


def widths(batch: Batch) -> list[list[int]]:
    """Return the width of each part's buckets."""
    return [[bucket.ids.shape[1] for bucket in part.buckets] for part in batch.parts]


def test_what_is_of_like_length_goes_together():
    sequences = Sequences([[5, 6], [5] * 40, [6, 7]], [[2] * n for n in (40, 8, 31, 7, 30, 1)], [0, 0, 1, 2, 2, 1])
    batch = lay_out(sequences, shared=True)
    assert [part.prefix[0].shape for part in batch.parts] == [(1, 39), (2, 1)]
    assert widths(batch) == [[32, 2], [41, 9]]
    assert batch.order == [2, 5, 0, 4, 1, 3]
    assert widths(lay_out(sequences, shared=True, least_fill=0)) == [[32], [41]]
    assert widths(lay_out(sequences, shared=False, least_fill=0)) == [[71]]


def test_the_last_state_is_that_of_the_whole_sequence():
    model = neox().double()
    batch = last_states_only(lay_out(BATCH, shared=True))
    states = wanted_states(model.base_model, batch)
    for place, number in enumerate(batch.order):
        whole = torch.tensor([[*PROMPTS[PROMPT_OF[number]], *COMPLETIONS[number]]])
        torch.testing.assert_close(states[place], model.base_model(whole).last_hidden_state[0, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BloomConfig(hidden_size=32, n_layer=2, n_head=4), "takes no position_ids"),
        (MambaConfig(hidden_size=32, num_hidden_layers=2), "recurrent state"),
    ],
)
def test_families_that_cannot_share_say_why_and_are_grouped(config, reason):
    model = model_of(config)
    assert reason in str(why_not_shared(model))
    ours = logps(model, lay_out(BATCH, shared=False))
    for own, other in zip(ours, one_by_one(model, PROMPTS, COMPLETIONS, PROMPT_OF), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-4)


def test_a_mixture_of_experts_shares():
    assert why_not_shared(model_of(MixtralConfig(**GROUPED_HEADS, num_local_experts=4))) is None


def test_gradient_checkpointing_does_not_share():
    model = neox()
    model.gradient_checkpointing_enable()
    assert "gradient checkpointing" in str(why_not_shared(model))


def test_states_that_are_no_numbers_are_found_out(monkeypatch):
    model = neox()
    plain = model.base_model.forward

    def forward(*args, input_ids, position_ids=None, past_key_values=None, use_cache=None, **kwargs):
        given = {"position_ids": position_ids, "past_key_values": past_key_values, "use_cache": use_cache}
        found = plain(*args, input_ids=input_ids, **given, **kwargs)
        if position_ids is not None and input_ids.shape[1] == 12:  # the longest completion, the third of four
            found.last_hidden_state.mul_(torch.nan)
        return found

    monkeypatch.setattr(model.base_model, "forward", forward)
    assert "come out differently (nan)" in str(why_not_shared(model))


def test_a_model_that_computes_otherwise_with_a_cache_is_found_out(monkeypatch):
    model = neox()
    plain = model.base_model.forward

    def forward(*args, position_ids=None, past_key_values=None, use_cache=None, **kwargs):
        shifted = None if position_ids is None else position_ids + 1 + past_key_values.get_seq_length()
        return plain(*args, position_ids=shifted, past_key_values=past_key_values, use_cache=use_cache, **kwargs)

    monkeypatch.setattr(model.base_model, "forward", forward)
    assert "come out differently" in str(why_not_shared(model))


def test_the_gradient_of_rows_taken_often_is_the_same_in_every_run():
    values = torch.randn(4, 64, 64, requires_grad=True)
    rows = torch.arange(4).repeat(16)
    weights = torch.randn(64, 64, 64)
    torch.set_num_threads(2)  # one_thread puts back what was before
    found = [torch.autograd.grad((take_rows(values, rows) * weights).sum(), values)[0] for _ in range(20)]
    by_hand = torch.stack([weights[rows == row].sum(0) for row in range(4)])
    assert torch.allclose(found[0], by_hand, atol=1e-5)
    assert all(torch.equal(found[0], other) for other in found)
