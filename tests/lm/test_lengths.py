"""Models that tell lengths apart: what is forwarded together, and rewards, log-probabilities and gradients the same."""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    GPTNeoConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
)

import tasks.lm.sharing
from tasks.config.training import DpoConfig
from tasks.lm.batches import Sequences
from tasks.lm.layout import by_completion, lay_out, targets
from tasks.lm.lengths import ANY_LENGTH, Lengths, rotary_lengths, thresholds
from tasks.lm.logps import CompletionLogps
from tasks.lm.prefix_forward import wanted_states
from tasks.lm.sharing import model_lengths
from tasks.rewards.model import CompletionRewards
from tasks.training.shared_prompts import plan_sharing

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 1}
SHAPE = {**IDS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 8}
NO_HEAD_DIM = {name: value for name, value in SHAPE.items() if name != "head_dim"}
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0, 5.0, 6.0, 7.0], "original_max_position_embeddings": 64}
MIXED = ["sliding_attention", "full_attention"]


def rope(kind, **settings):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


LONGROPE = Phi3Config(**NO_HEAD_DIM, original_max_position_embeddings=64, **rope("longrope", **FACTORS))
DYNAMIC = LlamaConfig(**{**SHAPE, "max_position_embeddings": 40}, **rope("dynamic", factor=4.0))
LLAMA4 = {**SHAPE, "intermediate_size_mlp": 64, "num_local_experts": 2, "no_rope_layers": [1, 0]}
FAMILIES = {
    "longrope": (LONGROPE, Lengths(64, False, 64)),
    "dynamic NTK": (DYNAMIC, Lengths(40, True, 40)),
    "yarn": (LlamaConfig(**SHAPE, **rope("yarn", factor=8.0, original_max_position_embeddings=24)), ANY_LENGTH),
    "window": (MistralConfig(**SHAPE, sliding_window=24), ANY_LENGTH),
    "window in some layers": (Gemma3TextConfig(**SHAPE, sliding_window=24, layer_types=MIXED), ANY_LENGTH),
    "local attention": (
        GPTNeoConfig(
            **IDS, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=24
        ),
        ANY_LENGTH,
    ),
    "chunks": (Llama4TextConfig(**LLAMA4, attention_chunk_size=24, attn_temperature_tuning=False), ANY_LENGTH),
    # counts places with the padding, so it is found out by the test of 24 tokens
    "temperature by place": (Llama4TextConfig(**LLAMA4, floor_scale=24, attn_scale=0.5), Lengths(None, False, 23)),
}


def model_of(auto, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(copy.deepcopy(config)).eval()
        for weight in model.parameters():
            weight.data.mul_(4.0 if weight.dim() > 1 else 1.0)
    return model


def drawn(*lengths):
    random = torch.Generator().manual_seed(1)
    return [torch.randint(4, 300, (length,), generator=random).tolist() for length in lengths]


# Below and above 24, 40 and 64 tokens, at once and across.
PROMPTS, COMPLETIONS = drawn(50, 9, 70, 30), drawn(30, 5, 40, 20, 8, 90, 3)
PROMPT_OF = [0, 1, 1, 2, 3, 1, 0]
BATCH = Sequences(PROMPTS, COMPLETIONS, PROMPT_OF)


def alone(model, read):
    """Return what is read of one plain forward pass a sequence, each through a model that has seen no other."""
    found = []
    for of, completion in zip(PROMPT_OF, COMPLETIONS, strict=True):
        with torch.inference_mode():
            logits = copy.deepcopy(model)(input_ids=torch.tensor([PROMPTS[of] + completion])).logits[0]
        found.append(read(logits, PROMPTS[of], completion))
    return np.array(found)


def logp(logits, prompt, completion):
    tokens = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(completion)[:, None])
    return tokens.sum().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_each_sequence_alone(family):
    config, lengths = FAMILIES[family]
    model = model_of(AutoModelForCausalLM, config)
    expected = alone(model, logp)
    logps = CompletionLogps(model)
    assert (logps.not_shared, logps.lengths) == (None, lengths)
    np.testing.assert_allclose(logps(*BATCH), expected, rtol=1e-5)
    logps.not_shared = "to compare"
    np.testing.assert_allclose(logps(*BATCH), expected, rtol=1e-5)


@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith(("chunks", "temperature"))])
def test_rewards_are_those_of_each_sequence_alone(family):
    model = model_of(AutoModelForSequenceClassification, FAMILIES[family][0])
    expected = alone(model, lambda logits, *_: logits.item())
    rewards = CompletionRewards(model)
    assert rewards.not_shared is None
    for _ in range(2):  # nothing is remembered of the first time
        np.testing.assert_allclose(rewards(*BATCH), expected, atol=1e-5)
    rewards.not_shared = "to compare"
    np.testing.assert_allclose(rewards(*BATCH), expected, atol=1e-5)


@pytest.mark.parametrize("config", [LONGROPE, DYNAMIC], ids=["longrope", "dynamic NTK"])
def test_gradients_of_a_training_batch_are_those_of_each_sequence_alone(config):
    model = model_of(AutoModelForCausalLM, config)
    lengths = model_lengths(model, shared=True)

    def gradient(tokens):
        model.zero_grad()
        sum(weight * own.sum() for weight, own in enumerate(tokens, 1)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    def together(of):
        batch = lay_out(BATCH, shared=True, lengths=of)
        logits = model.get_output_embeddings()(wanted_states(model.base_model, batch))
        return by_completion(batch, logits.log_softmax(-1).gather(1, targets(batch)[:, None])[:, 0])

    def each():
        for of, ids in zip(PROMPT_OF, COMPLETIONS, strict=True):
            logits = model(torch.tensor([PROMPTS[of] + ids])).logits[0, len(PROMPTS[of]) - 1 : -1]
            yield logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]

    expected = gradient(each())
    assert float((gradient(together(lengths)) - expected).norm() / expected.norm()) < 1e-4
    assert float((gradient(together(ANY_LENGTH)) - expected).norm() / expected.norm()) > 1e-3


def test_a_batch_by_hand():
    # 5 + 2, 5 + 5 and 9 + 3 tokens; twice the prompt and the completion are 12, 15 and 21
    sequences = Sequences([[3] * 5, [4] * 9], [[6] * 2, [7] * 5, [8] * 3], [0, 0, 1])
    shared = lay_out(sequences, shared=True, lengths=Lengths(shared_up_to=15))
    assert [part.prefix is None for part in shared.parts] == [True, False]
    assert shared.order == [2, 1, 0]
    assert shared.tokens == 12 + (4 + 1 + 2 + 1 + 5)
    assert [[b.ids.shape for b in part.buckets] for part in shared.parts] == [[(1, 12)], [(1, 6), (1, 3)]]
    plain = Lengths(switch=10, each=False)
    assert [b.ids.shape for b in lay_out(sequences, False, 0.0, plain).parts[0].buckets] == [(1, 12), (2, 10)]
    every = Lengths(switch=6, each=True)
    assert [b.ids.shape for b in lay_out(sequences, False, 0.0, every).parts[0].buckets] == [(1, 12), (1, 10), (1, 7)]


def test_what_a_configuration_says():
    assert rotary_lengths(LlamaConfig()) == ANY_LENGTH
    by_layer = {
        "full_attention": {"rope_type": "dynamic", "factor": 2.0},
        "sliding_attention": {"rope_type": "default"},
    }
    config = Gemma3TextConfig(max_position_embeddings=100)
    config.rope_parameters = by_layer
    assert rotary_lengths(config) == Lengths(100, True, 100)
    assert thresholds(Qwen2Config(use_sliding_window=True, sliding_window=24)) == [24]
    assert thresholds(Qwen2Config(use_sliding_window=False, sliding_window=24)) == []
    llama = LlamaConfig(**rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0) | {})
    llama.rope_parameters["original_max_position_embeddings"] = 64
    assert thresholds(llama) == []  # a matter of the position alone
    assert thresholds(FAMILIES["temperature by place"][0]) == [24]


def test_a_threshold_that_is_too_long_to_test_is_not_shared_beyond(monkeypatch, capsys):
    monkeypatch.setitem(tasks.lm.sharing.TEST_WORK, "cpu", 1e3)
    model = model_of(AutoModelForCausalLM, FAMILIES["window"][0])
    assert model_lengths(model, shared=True).shared_up_to == 23
    assert (
        "up to 23 tokens: what its configuration says of 24 tokens is too long to test here" in capsys.readouterr().out
    )


def test_dpo_shares_where_no_sequence_can_be_too_long(capsys):
    model = model_of(AutoModelForCausalLM, LONGROPE)
    assert plan_sharing(model, DpoConfig(max_length=32)) == (True, Lengths(64, False, 64))
    assert plan_sharing(model, DpoConfig(max_length=100))[0] is False
    assert "dpo.max_length = 100 allows sequences" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"dpo.max_length = 100 must be at most 64 with dpo.extra.fsdp"):
        plan_sharing(model, DpoConfig(max_length=100, extra={"fsdp": "full_shard"}))
    assert plan_sharing(model, DpoConfig(max_length=64, extra={"fsdp": "full_shard"})) == (False, None)


def test_logits_that_trl_would_get_wrong_are_refused():
    model = model_of(AutoModelForCausalLM, MistralConfig(**SHAPE))
    plain = model.forward
    model.forward = lambda *args, **options: twice(plain(*args, **options))

    def twice(output):
        output.logits = 2 * output.logits
        return output

    with pytest.raises(ValueError, match="computes its logits in a way that DPO does not know"):
        CompletionLogps(model)
