"""Grouped DPO against TRL's own trainer, which forwards both sides of every pair: equal losses and gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import ALL_AT_ONCE, THREE, arguments, gradient, grouped, pairwise, precise_head
from peft import LoraConfig
from random_groups import groups, neox
from transformers import AutoModelForCausalLM, MixtralConfig, PreTrainedModel

from tasks.config.losses import TRL_LOSSES
from tasks.config.training import DpoConfig
from tasks.training.dpo_setup import split_losses
from tasks.training.packs import DpoExample, Limits

pytestmark = pytest.mark.usefixtures("one_thread")


def both(tmp_path, model_of, own, limits, more=lambda: {}, **changes):
    """Return the relative difference of the gradients, and both losses."""
    ours, loss = gradient(*grouped(model_of(), own, limits, arguments(tmp_path, **changes), **more()))
    theirs, other = gradient(*pairwise(model_of(), own, arguments(tmp_path, **changes), **more()))
    return float((ours - theirs).norm() / theirs.norm()), loss, other


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trainer")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", TRL_LOSSES)
def test_every_loss_of_pairs(folder, name, shared):
    smoothing = {"label_smoothing": 0.1}
    apart, loss, other = both(folder, neox, THREE, Limits(10**6, 25, 1, shared), loss_type=[name], **smoothing)
    assert apart < 1e-5
    assert loss == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        {"use_weighting": True},
        {"f_divergence_type": "js_divergence"},
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
    ],
    ids=lambda changes: "+".join(map(str, changes.values())),
)
def test_mixtures_and_variants(folder, changes):
    apart, loss, other = both(folder, neox, THREE, ALL_AT_ONCE._replace(tokens=25), **changes)
    assert apart < 1e-5
    assert loss == pytest.approx(other, rel=1e-5)


@settings(max_examples=12, deadline=None)
@given(groups(), st.integers(1, 60), st.booleans())
def test_in_float64_gradients_are_equal(folder, own, tokens, shared):
    with precise_head():
        limits = Limits(10**6, tokens, 1, shared)
        apart, loss, other = both(
            folder, lambda: neox().double(), own, limits, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.1]
        )
    assert apart < 1e-12
    assert loss == pytest.approx(other, rel=1e-12)


def test_with_adapters(folder):
    config = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False}
    torch.manual_seed(0)
    apart, loss, other = both(
        folder, neox, THREE, ALL_AT_ONCE._replace(tokens=25), lambda: {"peft_config": LoraConfig(**config)}
    )
    assert apart < 1e-5
    assert loss == pytest.approx(other, rel=1e-5)
    assert abs(loss - np.log(2)) > 1e-3


def test_with_gradient_checkpointing(folder):
    limits = ALL_AT_ONCE._replace(tokens=25, shared=False)
    apart, loss, other = both(folder, neox, THREE, limits, gradient_checkpointing=True)
    assert apart < 1e-5
    assert loss == pytest.approx(other, rel=1e-5)


def test_a_mixture_of_experts(folder):
    def mixtral() -> PreTrainedModel:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = MixtralConfig(vocab_size=40, num_key_value_heads=2, num_local_experts=4, **sizes)
        return AutoModelForCausalLM.from_config(config)

    apart, loss, other = both(folder, mixtral, THREE, ALL_AT_ONCE._replace(tokens=25))
    assert apart < 1e-5
    assert loss == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("with_sft", [False, True])
def test_cdpo_is_what_trl_gives_as_a_mixture(folder, with_sft):
    """-(1-e) log s(h) - e log s(-h) = 2 (1-e) sigmoid - (1-2e) robust, with TRL's own two losses."""
    e, limits = 0.2, ALL_AT_ONCE._replace(tokens=25)
    config = DpoConfig(
        label_smoothing=e,
        loss_type=("sigmoid", "sft") if with_sft else "sigmoid",
        loss_weights=(1.0, 0.3)[: 1 + with_sft],
    )
    ours, theirs = split_losses(config)
    names, weights = zip(*(theirs or [("sigmoid", 0.0)]), strict=True)
    own = arguments(folder, loss_type=list(names), loss_weights=list(weights))
    mixture = arguments(
        folder,
        loss_type=["sigmoid", "robust", "sft"],
        loss_weights=[2 * (1 - e), -(1 - 2 * e), 0.3 * with_sft],
        label_smoothing=e,
    )
    mine, loss = gradient(*grouped(neox(), THREE, limits, own, own_losses=ours))
    other, expected = gradient(*pairwise(neox(), THREE, mixture))
    assert float((mine - other).norm() / other.norm()) < 1e-5
    assert loss == pytest.approx(expected, rel=1e-5)


# What is forwarded


def rows_forwarded(trainer, batches) -> int:
    """Count the rows that go through the model."""
    rows: list[int] = []
    hook = trainer.model.get_input_embeddings().register_forward_hook(lambda *call: rows.append(len(call[-1])))
    gradient(trainer, batches)
    hook.remove()
    return sum(rows)


def test_each_completion_is_one_row(folder):
    unique, pairs = 4 + 2 + 2, 4 + 1 + 1
    args = arguments(folder)
    assert rows_forwarded(*grouped(neox(), THREE, ALL_AT_ONCE._replace(shared=False), args)) == unique
    assert (
        rows_forwarded(*grouped(neox(), THREE, ALL_AT_ONCE, arguments(folder))) == unique + 2
    )  # of three prompts, one has one token
    assert rows_forwarded(*pairwise(neox(), THREE, arguments(folder))) == 2 * pairs


def trained(folder, own: list[DpoExample], limits: Limits) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """Train for an epoch; return the weights in a row, and what was logged of each step."""
    args = arguments(folder, learning_rate=1e-2, lr_scheduler_type="constant", optim="sgd")
    trainer, _ = grouped(neox(), own, limits, args)
    trainer.train()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return weights, [entry for entry in trainer.state.log_history if "loss" in entry]


UNEVEN = [THREE[0], *(THREE[2]._replace(prompt=[i] * 6) for i in range(2, 8))]


def test_an_epoch_does_not_depend_on_the_packing(folder):
    whole, log = trained(folder, UNEVEN, Limits(4, 10**9, 1, True))
    packed, packed_log = trained(folder, UNEVEN, Limits(4, 14, 1, True))
    assert len(log) == 3
    torch.testing.assert_close(packed, whole, rtol=0, atol=1e-6)
    assert not torch.equal(whole, torch.cat([p.flatten() for p in neox().parameters()]))
    for name in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen"):
        assert [entry[name] for entry in packed_log] == pytest.approx([entry[name] for entry in log], rel=1e-4), name


def test_the_tokens_that_were_forwarded_are_logged(folder):
    _, log = trained(folder, THREE, ALL_AT_ONCE)
    # prefixes 2 + 0 + 5; a prompt's last token with each of 8 completions; completions 2 + 4 + 1 + 2, 7 + 1, 2 + 3
    assert log[-1]["num_tokens"] == 7 + 8 + 9 + 8 + 5
