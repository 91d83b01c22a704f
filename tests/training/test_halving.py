"""DPO where memory runs out: the same loss and gradient from smaller packs, or a message that says what to lower."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_memory import holds, out_of_memory
from pairwise import ALL_AT_ONCE, THREE, arguments, gradient, grouped, precise_head
from plain_pairs import GAPS, ours
from random_groups import groups, neox
from trainings import STAGES
from trainings import train as train_stage

from tasks.config.errors import ConfigurationError
from tasks.config.training import DpoConfig
from tasks.store.folders import Store
from tasks.training.dpo_trainer import PackedDPOTrainer
from tasks.training.halving import FittingPacks, halve_pack, pack_tokens, says_what_to_lower
from tasks.training.held_out import MeasureHeldOut
from tasks.training.packs import Limits, Pack, Piece, schedule_packs

pytestmark = pytest.mark.usefixtures("one_thread")

PIECES = (Piece(0, 0, 2, 30, 8), Piece(1, 0, 1, 20, 2), Piece(2, 0, 1, 9, 6))
UNRELATED = [example._replace(unrelated=0, reward_gaps=gaps) for example, gaps in zip(THREE, GAPS, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("halving")


# Packs in halves


def test_halves_by_hand():
    one, other = halve_pack(Pack(PIECES, 0.5, 0.4, per_completion=2.0), THREE, True)
    assert (one.pieces, other.pieces) == (PIECES[:1], PIECES[1:])  # 30 tokens, and 20 + 9
    assert (one.weight, other.weight) == (0.25, 0.25)  # 2 of 4 pairs
    assert (one.token_weight, other.token_weight) == (0.2, 0.2)  # 8 of 16 tokens of chosen completions
    assert (one.each, one.per_completion) == ((), 2.0)


def test_halves_of_weighed_pairs_by_hand():
    one, other = halve_pack(Pack(PIECES, 0.5, 0.4, each=(0.5, 1.0, 2.0)), THREE, True)
    assert (one.weight, other.weight) == (0.125, 0.375)  # 2 x 0.5 and 1 + 2, of 4
    assert one.each == (1.0,)
    assert other.each == pytest.approx((1 / 1.5, 2 / 1.5))  # 1 on average


def test_a_prompt_is_cut_between_its_pairs_and_a_pair_never():
    (whole,) = schedule_packs(THREE[:1], ALL_AT_ONCE, 1, None, 0).packs
    one, other = halve_pack(whole, THREE[:1], True)
    assert [(p.first, p.last) for half in (one, other) for p in half.pieces] == [(0, 2), (2, 4)]
    last = FittingPacks(collator_of(THREE[:1]), alone=True)
    last.tokens = 1
    assert [part.pieces[0].pairs for part in last.cut(whole)] == [1, 1, 1, 1]


def collator_of(own):
    return grouped(neox(), own, ALL_AT_ONCE, arguments("unused"))[0].data_collator


def in_parts(trainer: PackedDPOTrainer, tokens: int) -> list[dict]:
    """Return the batches of all packs, cut to so many tokens."""
    packs = FittingPacks(trainer.data_collator, alone=True)
    packs.tokens = tokens
    return [trainer.data_collator.lay_out_pack(part) for pack in packs.collator.packs for part in packs.cut(pack)]


@settings(max_examples=15, deadline=None)
@given(groups(), st.integers(1, 60), st.booleans())
def test_gradients_of_parts_add_up(folder, own, tokens, shared):
    """In float64, for a mean over pairs and one over tokens."""
    with precise_head():
        args = arguments(folder, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.1])
        trainer, packs = grouped(neox().double(), own, ALL_AT_ONCE._replace(shared=shared), args)
        whole, loss = gradient(trainer, packs)
        parts, other = gradient(trainer, in_parts(trainer, tokens))
    assert float((parts - whole).norm() / whole.norm()) < 1e-12
    assert other == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [{"loss_type": "kto"}, {"loss_type": "rebel", "weight_pairs": "prompt"}, {"loss_type": ["simpo", "sft"]}],
    ids=str,
)
def test_gradients_of_parts_add_up_for_our_own_losses(folder, changes):
    trainer, packs = ours(folder, UNRELATED, ALL_AT_ONCE, DpoConfig(**changes))
    whole, loss = gradient(trainer, packs)
    parts = in_parts(trainer, 12)
    assert len(parts) > 3
    found, other = gradient(trainer, parts)
    assert float((found - whole).norm() / whole.norm()) < 2e-5
    assert other == pytest.approx(loss, rel=2e-5)


# Trainings that run out of memory

UNEVEN = [THREE[0], *(THREE[2]._replace(prompt=[i] * 6) for i in range(2, 8))]
LOGGED = ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "num_tokens")


def trained(folder, limits: Limits, most: int | None = None, backward: bool = False):
    """Return the weights after an epoch, what was logged of each step, and the trainer."""
    args = arguments(folder, learning_rate=1e-2, lr_scheduler_type="constant", optim="sgd")
    trainer, _ = grouped(neox(), UNEVEN, limits, args)
    with holds(trainer.model, 1 << 30 if most is None else most, backward) as fit:
        trainer.train()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return weights, [entry for entry in trainer.state.log_history if "loss" in entry], trainer, fit


@pytest.mark.parametrize("limits", [Limits(4, 10**9, 1, True), Limits(5, 40, 1, True)], ids=["a pack a step", "two"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_an_epoch_that_runs_out_of_memory_is_the_same_epoch(folder, limits, backward, capsys):
    whole, log, *_ = trained(folder, limits)
    said = capsys.readouterr().out
    found, found_log, trainer, fit = trained(folder, limits, most=14, backward=backward)
    assert "out of memory" not in said
    assert re.search(r"out of memory at a pack of (\d+) tokens: going on with \d+", capsys.readouterr().out)
    assert 0 < max(fit) <= 14
    assert trainer.step.packs.tokens < max(map(pack_tokens, trainer.data_collator.packs))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)
    for name in LOGGED[:-1]:
        assert [entry[name] for entry in found_log] == pytest.approx([entry[name] for entry in log], rel=1e-4), name


def test_what_was_halved_once_is_not_tried_again(folder, capsys):
    *_, trainer, _ = trained(folder, Limits(4, 10**9, 1, True), most=14)
    said = re.findall(r"out of memory at a pack of (\d+) tokens: going on with (\d+)", capsys.readouterr().out)
    assert said == [("36", "18")]  # in the first of three steps
    assert trainer.state.global_step == 3
    assert trainer.step.packs.tokens == 18


def test_the_gradient_before_the_optimizer_has_no_rest_of_the_failed_pass(folder):
    """A backward pass that fails has left gradients behind: were they kept, the step would be up to twice as long."""
    trainer, _ = grouped(neox(), UNEVEN, Limits(10**6, 40, 1, True), arguments(folder))
    packs, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 10, trainer.args.device)
    assert len(packs) > 2
    found = []
    for most in (1 << 30, 14):
        trainer.model.zero_grad()
        trainer._note_step()
        with holds(trainer.model, most, backward=True):
            loss = sum(trainer.training_step(trainer.model, inputs) for inputs in packs)
        found.append((torch.cat([p.grad.flatten() for p in trainer.model.parameters()]), float(loss)))
    (whole, loss), (parts, other) = found
    assert float((parts - whole).norm() / whole.norm()) < 1e-5
    assert other == pytest.approx(loss, rel=1e-5)


def test_passes_without_gradient_are_cut_too(folder):
    trainer, packs = ours(folder, UNRELATED, ALL_AT_ONCE, DpoConfig(loss_type="kto"))
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    trainer.measure_reference(packs)
    point, measured = trainer.reference_point, MeasureHeldOut(trainer, trainer.data_collator).measure()
    with holds(trainer.model, 12) as fit:
        trainer.measure_reference(packs)
        again = MeasureHeldOut(trainer, trainer.data_collator).measure()
    assert 0 < max(fit) <= 12
    assert float(trainer.reference_point) == pytest.approx(float(point), rel=1e-5)
    assert again == pytest.approx(measured, rel=1e-4)


# What cannot be cut


def test_a_pair_that_does_not_fit_is_named(folder):
    with pytest.raises(ConfigurationError, match=r"^a pair of \d+ tokens needs more memory .*: set dpo.lora"):
        trained(folder, Limits(4, 10**9, 1, True), most=3)


def test_several_devices_say_what_to_lower(folder):
    trainer, packs = grouped(neox(), THREE, ALL_AT_ONCE, arguments(folder))
    trainer.step.packs.alone = False
    with (
        holds(trainer.model, 3),
        pytest.raises(ConfigurationError, match=r"^a pack of \d+ tokens .*: lower dpo.tokens_per_batch"),
    ):
        trainer.training_step(trainer.model, packs[0])


def test_every_training_says_what_to_lower():
    for stage, lower in [
        ("sft", "lower sft.tokens_per_batch, which changes no result; set sft.extra.gradient_checkpointing; set "),
        ("reward_model", "lower reward_model.tokens_per_batch, which"),
        ("dpo", "lower dpo.tokens_per_batch, which changes no result; set dpo.extra.gradient_checkpointing; lower "),
    ]:
        said = rf"^the training ran out of memory: {lower}.*2.00 GiB"
        with pytest.raises(ConfigurationError, match=said), says_what_to_lower(STAGES[stage]):
            raise out_of_memory()


def test_a_stage_says_so(tmp_path, start, monkeypatch):
    def forward(*_: object, **__: object) -> None:
        raise out_of_memory()

    monkeypatch.setattr("transformers.LlamaModel.forward", forward)
    with pytest.raises(ConfigurationError, match=r"^an example of \d+ tokens needs more .*: set sft.lora, sft.dtype"):
        train_stage("sft", Store(str(tmp_path)), start)
