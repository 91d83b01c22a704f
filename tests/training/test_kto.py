"""KTO on the completions of pairs: against TRL's trainer, and what a completion counts, however packed."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from pairwise import THREE, arguments, gradient, pairwise
from plain_pairs import PACKINGS, assert_same, logps_of, ours
from random_groups import neox
from torch.nn.utils.rnn import pad_sequence
from trl import KTOTrainer

from tasks.config.training import DpoConfig
from tasks.training.packs import DpoExample, Limits

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = DpoConfig(loss_type="kto", beta=0.3, kto_desirable_weight=1.3, kto_undesirable_weight=0.8)
REF_OF_UNRELATED = (-31.0, -7.0, -12.0)
"""Below what the model gives, on average, so that the reference point is above 0."""


def with_unrelated(own: list[DpoExample]) -> list[DpoExample]:
    """Return examples with the first completion of the next one, as the stage adds it."""
    return [
        example._replace(
            completions=[*example.completions, own[(i + 1) % len(own)].completions[0]],
            ref_logps=[*(example.ref_logps or ()), REF_OF_UNRELATED[i % 3]],
            unrelated=len(example.completions),
        )
        for i, example in enumerate(own)
    ]


MIXED = with_unrelated(THREE)
"""Of the first prompt, completion 1 is chosen over 2, and rejected for 0 and 3."""
ONE_SIDED = with_unrelated([THREE[0]._replace(chosen=[0, 0, 3], rejected=[1, 2, 1]), *THREE[1:]])


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def plain(own: list[DpoExample]) -> tuple[torch.Tensor, float]:
    """Return gradient and value of the mean over completions, each forwarded by itself, labelled by its pairs."""
    model = neox().train()
    used = [(example, place) for example in own for place in sorted({*example.chosen, *example.rejected})]
    ratios = [logps_of(model, e, e.unrelated).detach() - e.ref_logps[e.unrelated] for e, _ in used]
    point = CONFIG.beta * torch.stack(ratios).mean().clamp(min=0)
    assert point > 0
    losses = []
    for example, place in used:
        value = CONFIG.beta * (logps_of(model, example, place) - example.ref_logps[place])
        above, below = example.chosen.count(place), example.rejected.count(place)
        desirable = CONFIG.kto_desirable_weight * (1 - torch.sigmoid(value - point))
        undesirable = CONFIG.kto_undesirable_weight * (1 - torch.sigmoid(point - value))
        losses.append((above * desirable + below * undesirable) / (above + below))
    loss = torch.stack(losses).mean()
    loss.backward()
    return flat_gradient(model), loss.item()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trainer")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("own", [MIXED, ONE_SIDED], ids=["mixed", "one-sided"])
def test_the_loss_is_a_mean_over_completions(folder, own, packing):
    assert_same(gradient(*ours(folder, own, PACKINGS[packing], CONFIG)), plain(own))


def trls_batch(own: list[DpoExample]) -> dict[str, torch.Tensor]:
    """Return each completion with its label, and its prompt with the completion of another, as TRL's collator does."""
    rows = [(e, place) for e in own for place in sorted({*e.chosen, *e.rejected})]
    batch = {
        "label": torch.tensor([place in e.chosen for e, place in rows]),
        "ref_logps": torch.tensor([e.ref_logps[place] for e, place in rows]),
        "ref_KL_logps": torch.tensor([e.ref_logps[e.unrelated] for e, _ in rows]),
    }
    for prefix, places in (("", [place for _, place in rows]), ("KL_", [e.unrelated for e, _ in rows])):
        whole = [torch.tensor([*e.prompt, *e.completions[i]]) for (e, _), i in zip(rows, places, strict=True)]
        masks = [torch.arange(len(ids)) >= len(e.prompt) for ids, (e, _) in zip(whole, rows, strict=True)]
        padded = {"input_ids": whole, "attention_mask": [torch.ones_like(ids) for ids in whole]}
        padded["completion_mask"] = [mask.long() for mask in masks]
        batch |= {f"{prefix}{name}": pad_sequence(values, batch_first=True) for name, values in padded.items()}
    return batch


def test_it_is_that_of_trls_trainer(folder):
    theirs = object.__new__(KTOTrainer)
    theirs.model = pairwise(neox(), THREE, arguments(folder))[0].model.train()  # has TRL's head
    theirs.accelerator = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda value: value)
    theirs.calculate_KL = theirs.precompute_ref_logps = True
    theirs.aux_loss_enabled, theirs.loss_type, theirs.beta = False, "kto", CONFIG.beta
    theirs.desirable_weight, theirs.undesirable_weight = CONFIG.kto_desirable_weight, CONFIG.kto_undesirable_weight
    theirs._metrics, theirs._total_train_tokens, theirs._tp_size = {"train": defaultdict(list)}, 0, 1
    loss = theirs._compute_loss(theirs.model, trls_batch(ONE_SIDED), False)
    loss.backward()
    trainer, packs = ours(folder, ONE_SIDED, PACKINGS["in packs"], CONFIG)
    assert_same(gradient(trainer, packs), (flat_gradient(theirs.model), loss.item()))
    assert trainer.reference_point.item() == pytest.approx(theirs._metrics["train"]["kl"][0], rel=1e-5)


def test_below_zero_the_reference_point_is_zero(folder):
    own = [e._replace(ref_logps=[*e.ref_logps[:-1], -1.0]) for e in MIXED]
    trainer, _ = ours(folder, own, PACKINGS["at once"], CONFIG)
    assert trainer.reference_point.item() == 0


def trained(folder, own: list[DpoExample], limits: Limits):
    """Train for an epoch; return the weights in a row, and what was logged of each step."""
    trainer, _ = ours(folder, own, limits, CONFIG, learning_rate=1e-1, lr_scheduler_type="constant", optim="sgd")
    trainer.train()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return weights, [entry for entry in trainer.state.log_history if "loss" in entry]


def test_an_epoch_does_not_depend_on_the_packing(folder):
    own = with_unrelated([THREE[0], *(THREE[2]._replace(prompt=[i] * 6) for i in range(2, 8))])
    whole, log = trained(folder, own, Limits(3, 10**9, 1, True))  # cuts the first prompt's pairs over two steps
    packed, packed_log = trained(folder, own, Limits(3, 14, 1, True))
    assert len(log) > 2
    torch.testing.assert_close(packed, whole, rtol=0, atol=1e-6)
    assert not torch.equal(whole, torch.cat([p.flatten() for p in neox().parameters()]))
    for name in ("loss", "kl", "rewards/margins"):
        assert [entry[name] for entry in packed_log] == pytest.approx([entry[name] for entry in log], rel=1e-4), name
    assert any(entry["kl"] > 0 for entry in log)
