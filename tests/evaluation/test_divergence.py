"""KL(pi || pi_ref): against enumeration of every sequence, by hand, and drawn as it must be."""

import copy
import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from random_groups import groups, neox, tokenizer
from transformers import AutoModelForCausalLM, GPTNeoXConfig, PhiConfig

from tasks.config.settings import Decoding, SamplingConfig
from tasks.data.loading import commit_rows
from tasks.evaluation.divergence import KlSettings, estimate_kl, own_distribution, summarize
from tasks.lm.logps import CompletionDivergence, CompletionLogps, divergence
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store

pytestmark = pytest.mark.usefixtures("one_thread")

LONGEST, VOCABULARY, PROMPT = 3, 4, [1, 3, 2]


def random_model(seed, vocabulary=VOCABULARY, scale=3.0):
    """Return a model whose distributions are far from uniform."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale * 5)
        model.get_input_embeddings().weight.mul_(scale)
    return model


def moved(model, size=0.5):
    """Return the model, its weights moved a little."""
    other = copy.deepcopy(model)
    torch.manual_seed(10)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(size * parameter.abs().mean() * torch.randn_like(parameter))
    return other


def every_sequence():
    """Return all completions: they end with token 0, or are cut at the third."""
    ended = [(*start, 0) for n in range(LONGEST) for start in itertools.product(range(1, VOCABULARY), repeat=n)]
    return [*ended, *itertools.product(range(1, VOCABULARY), repeat=LONGEST)]


def logprobs(model, completion, temperature=1.0):
    """Return log pi(y | x), one forward pass a token."""
    total = 0.0
    for end, token in enumerate(completion):
        with torch.inference_mode():
            logits = model(torch.tensor([PROMPT + list(completion[:end])])).logits[0, -1].double()
        total += torch.log_softmax(logits / temperature, -1)[token].item()
    return total


@pytest.fixture(scope="module")
def world(one_thread):
    """Return two models, every sequence, and its log-probability under each."""
    policy, sequences = random_model(0), every_sequence()
    reference = moved(policy)
    both = [np.array([logprobs(model, y) for y in sequences]) for model in (policy, reference)]
    return policy, reference, sequences, both


def along(policy, reference, sequences):
    """Return the divergence along each completion of the one prompt."""
    both = copy.deepcopy(policy), copy.deepcopy(reference)
    return CompletionDivergence(*both)([PROMPT], [list(y) for y in sequences], [0] * len(sequences))


# The estimator


def test_two_tokens_by_hand():
    found = divergence(torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log(), torch.zeros(2, 2))
    assert found.tolist() == pytest.approx([0.75 * np.log(1.5) + 0.25 * np.log(0.5), 0], abs=1e-7)


def test_a_token_that_both_rule_out_adds_nothing():
    logits = torch.tensor([[3.0, 1.0, 0.0]]).log()  # the third has a probability of 0
    assert divergence(logits, torch.tensor([[1.0, 1.0, 0.0]]).log()).tolist() == pytest.approx(
        [0.75 * np.log(1.5) + 0.25 * np.log(0.5)], abs=1e-7
    )
    assert divergence(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]).log()).tolist() == [torch.inf]


def test_a_model_of_two_tokens_by_hand():
    models = []
    for odds in (3.0, 1.0):
        config = PhiConfig(vocab_size=2, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
        config.update({"bos_token_id": None, "eos_token_id": None})
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.lm_head.bias[0] = np.log(odds)  # the first token: 3 / 4, or 1 / 2, wherever it stands
        models.append(model)
    found = CompletionDivergence(*models)([[1]], [[0], [1, 0], [1, 1, 1]], [0, 0, 0])
    a_token = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    np.testing.assert_allclose(found, [a_token, 2 * a_token, 3 * a_token], rtol=1e-6)


def test_its_mean_over_every_sequence_is_the_divergence(world):
    policy, reference, sequences, (log_p, log_q) = world
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1)
    exact, found = (p * (log_p - log_q)).sum(), along(policy, reference, sequences)
    assert exact > 0.3
    assert (p * found).sum() == pytest.approx(exact, rel=1e-5)


def test_it_varies_less_than_the_log_ratio(world):
    policy, reference, sequences, (log_p, log_q) = world
    p, found, ratio = np.exp(log_p), along(policy, reference, sequences), log_p - log_q
    variance, of_ratio = ((p * (x - (p * x).sum()) ** 2).sum() for x in (found, ratio))
    assert variance < of_ratio / 10


def test_samples_of_another_temperature_are_biased(world):
    policy, reference, sequences, (log_p, log_q) = world
    colder = np.exp([logprobs(policy, y, temperature=0.5) for y in sequences])
    log_ratio, exact = (colder * (log_p - log_q)).sum(), (np.exp(log_p) * (log_p - log_q)).sum()
    assert abs((colder * along(policy, reference, sequences)).sum() / exact - 1) > 0.1
    assert abs(log_ratio / exact - 1) > 0.1  # what the log-ratios of such samples gave


def test_the_interval_holds_the_divergence(world):
    policy, reference, sequences, (log_p, log_q) = world
    p, found = np.exp(log_p), along(policy, reference, sequences)
    exact, exact_tokens = (p * (log_p - log_q)).sum(), (p * [len(y) for y in sequences]).sum()
    held = []
    for seed in range(40):
        drawn = np.random.default_rng(seed).choice(len(sequences), 200, p=p / p.sum())
        rows = pa.table(
            {
                "prompt_id": [f"{i // 2:03d}" for i in range(200)],
                "num_tokens": [len(sequences[i]) for i in drawn],
                "finish_reason": ["stop" if sequences[i][-1] == 0 else "length" for i in drawn],
            }
        )
        figures = summarize(rows, found[drawn], 200, seed)
        a_sequence = figures["kl_sequence_low"] <= exact <= figures["kl_sequence_high"]
        a_token = figures["kl_token_low"] <= exact / exact_tokens <= figures["kl_token_high"]
        held += [a_sequence, a_token]
        assert figures["kl_sequence_low"] < figures["kl_sequence"] < figures["kl_sequence_high"]
    assert np.mean(held) > 0.85  # of 95%


def test_summary_by_hand():
    rows = pa.table(
        {
            "prompt_id": ["a", "a", "b", "b"],
            "num_tokens": [1, 3, 2, 2],
            "finish_reason": ["stop", "length", "stop", "stop"],
        }
    )
    figures = summarize(rows, np.array([1.0, 2.0, 4.0, 1.0]), 1000, 0)
    assert (figures["kl_sequence"], figures["kl_token"]) == (2.0, 1.0)
    # Both prompts twice, or each of them: means 1.5, 2, 2.5.
    assert (figures["kl_sequence_low"], figures["kl_sequence_high"]) == (1.5, 2.5)
    assert (figures["completions"], figures["truncated"], figures["temperature"]) == (4, 1, 1.0)


@settings(max_examples=20)
@given(groups(), st.integers(0, 3))
def test_it_is_never_negative_and_that_of_equal_models_is_zero(some, seed):
    prompts, completions = [group.prompt for group in some], [y for group in some for y in group.completions]
    prompt_of = [number for number, group in enumerate(some) for _ in group.completions]
    policy, other = neox(), random_model(seed, vocabulary=40, scale=0.3)
    assert (CompletionDivergence(policy, other)(prompts, completions, prompt_of) >= 0).all()
    assert not CompletionDivergence(policy, copy.deepcopy(policy))(prompts, completions, prompt_of).any()


# Models


BASE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**BASE, "intermediate_size": 64, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1}
FAMILIES = [
    ("Llama", {**LLAMA, "tie_word_embeddings": True}),
    ("Gemma2", {**LLAMA, "head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 3.0}),
    ("Granite", {**LLAMA, "logits_scaling": 0.25}),
    ("Cohere", {**LLAMA, "logit_scale": 4.0}),
    ("Mixtral", LLAMA),
    ("OPT", {**BASE, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    ("Mamba", {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "sizes"), FAMILIES)
def test_the_logits_are_those_of_the_family(family, sizes, dtype):
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{family}Config")(**{**sizes, "eos_token_id": 2})
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
        models.append(model.to(dtype))
    prompts, completions, prompt_of = [[5, 9, 11, 30], [7]], [[8, 3, 40, 2], [9], [10, 11, 12]], [0, 1, 0]
    expected = []
    for ids, of in zip(completions, prompt_of, strict=True):
        whole = torch.tensor([prompts[of] + ids])
        with torch.no_grad():
            p, q = (m(whole).logits[0].double().log_softmax(-1)[len(prompts[of]) - 1 : -1] for m in models)
        expected.append((p.exp() * (p - q)).sum().item())
    found = CompletionDivergence(*models)(prompts, completions, prompt_of)
    np.testing.assert_allclose(found, expected, rtol=1e-4 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("tokens_per_batch", [1, 9, 1000])
@pytest.mark.parametrize("logits", [1, 3 * VOCABULARY, 1 << 24])
def test_neither_batches_nor_pieces_matter(world, monkeypatch, tokens_per_batch, logits):
    policy, reference, sequences, _ = world
    expected = along(policy, reference, sequences)
    monkeypatch.setattr("tasks.lm.logps.LOGITS", logits)
    models = copy.deepcopy(policy), copy.deepcopy(reference)
    prompts, prompt_of = [PROMPT, [1, 2]], [0, 1] * len(sequences)
    twice = [list(y) for y in sequences for _ in prompts]
    found = CompletionDivergence(*models, tokens_per_batch)(prompts, twice, prompt_of)
    np.testing.assert_allclose(found[::2], expected, rtol=1e-4, atol=1e-6)


def test_two_vocabularies_are_refused():
    with pytest.raises(ValueError, match="policy has logits of 4 tokens and the reference of 5: KL needs one"):
        CompletionDivergence(random_model(0), random_model(0, vocabulary=5))


# From a store


def test_the_completions_are_drawn_from_the_policy_itself():
    sampling = SamplingConfig(temperature=0.7, top_p=0.9, top_k=50, max_new_tokens=32, stop=("x",), seed=5)
    own = own_distribution(sampling, 2)
    assert (own.k, own.temperature, own.top_p, own.top_k) == (2, 1, 1, 0)
    assert (own.max_new_tokens, own.stop, own.seed) == (32, ("x",), 5)


def test_those_that_are_there_are_taken():
    plain = Decoding(k=4)
    assert own_distribution(plain, 1) == own_distribution(plain, 4) == plain
    assert own_distribution(plain, 6).k == 6
    assert own_distribution(Decoding(k=4, top_k=5), 1).k == 1


def save(model, folder):
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Artifact(kind="model", uri=str(folder), digest=folder.name)


def test_from_policy_reference_and_prompts(tmp_path):
    store = Store(str(tmp_path / "store"))
    reference = save(neox(), tmp_path / "reference")
    model = moved(neox(), 1.0)
    policy = save(model, tmp_path / "policy")
    rows = [
        {"prompt_id": f"p{i}", "messages": [{"role": "user", "content": f"w{i + 3} w{i + 4}"}], "source": "test"}
        for i in range(6)
    ]
    draft = Draft(store, Provenance(stage="load_held_out", version=1, key="k"))
    prompts = commit_rows(draft, "prompts", rows, {})
    decoding = own_distribution(Decoding(temperature=0.5, max_new_tokens=8, engine="transformers"), 3)
    kl = estimate_kl(store, policy, reference, prompts, KlSettings(decoding, 200))
    drawn = pa.concat_tables([slice_.read() for slice_ in kl.slices])
    assert (kl.figures["completions"], drawn.num_rows) == (18, 18)
    sequences = drawn["token_ids"].to_pylist()
    number = {row["prompt_id"]: [int(word[1:]) for word in row["messages"][0]["content"].split()] for row in rows}
    contexts, prompt_of = list(number.values()), [int(id_[1:]) for id_ in drawn["prompt_id"].to_pylist()]
    log_ratio = np.subtract(*(CompletionLogps(m)(contexts, sequences, prompt_of) for m in (model, neox())))
    assert kl.figures["kl_sequence"] == pytest.approx(log_ratio.mean(), abs=4 * log_ratio.std() / 18**0.5)
    assert kl.figures["kl_sequence"] > 0.05
    again = estimate_kl(store, policy, reference, prompts, KlSettings(decoding, 200))
    assert again.figures == kl.figures
    assert {slice_.part.digest for slice_ in again.slices} == {slice_.part.digest for slice_ in kl.slices}
    itself = estimate_kl(store, policy, policy, prompts, KlSettings(decoding, 200))
    assert itself.figures["kl_sequence"] == itself.figures["kl_token_high"] == 0
