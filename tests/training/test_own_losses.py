"""Our own losses and weights of pairs in the grouped trainer: as a plain forward pass of each pair gives them."""

from types import SimpleNamespace

import pytest
import torch
from pairwise import THREE, arguments, gradient, pairwise
from plain_pairs import PACKINGS, SCORED, assert_same, ours, plain_gradient, plain_values
from random_groups import neox
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from tasks.config.losses import NOT_OF_PAIRS, OWN_LOSSES, TRL_LOSSES, needs_reference
from tasks.config.training import DpoConfig
from tasks.training.losses import orpo_loss, sft_sequence_loss, simpo_loss
from tasks.training.packs import DpoExample, Limits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trainer")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("weights", ["pair", "prompt"])
@pytest.mark.parametrize("name", [name for name in OWN_LOSSES if name not in NOT_OF_PAIRS])
def test_every_loss_of_ours(folder, name, weights, packing):
    config = DpoConfig(loss_type=name, weight_pairs=weights)
    own = SCORED if needs_reference([name]) else [example._replace(ref_logps=None) for example in SCORED]
    assert_same(gradient(*ours(folder, own, PACKINGS[packing], config)), plain_gradient(own, config))


def test_losses_are_added_up_with_their_weights(folder):
    mixed = DpoConfig(loss_type=("sigmoid", "sft_sequence", "rpo"), loss_weights=(1.0, 0.3, 2.0), beta=0.3)
    gradients, loss = gradient(*ours(folder, SCORED, PACKINGS["in packs"], mixed))
    dpo = gradient(*pairwise(neox(), SCORED, arguments(folder, beta=0.3)))
    rest = [plain_gradient(SCORED, DpoConfig(loss_type=n, beta=b)) for n, b in (("sft_sequence", 0.1), ("rpo", 0.3))]
    expected = dpo[0] + 0.3 * rest[0][0] + 2 * rest[1][0]
    assert_same((gradients, loss), (expected, dpo[1] + 0.3 * rest[0][1] + 2 * rest[1][1]))


# Against TRL's


def test_simpo_is_that_of_trls_trainer():
    theirs = SimpleNamespace(alpha=0.0, loss_type="simpo", simpo_gamma=1.2, beta=2.5, label_smoothing=0.0)
    theirs.accelerator = SimpleNamespace(device="cpu")
    chosen, rejected = -torch.rand(2, 50) * 5
    torch.testing.assert_close(simpo_loss(chosen, rejected, 2.5, 1.2), CPOTrainer.cpo_loss(theirs, chosen, rejected)[0])


def test_orpo_is_that_of_trls_trainer_but_for_the_tokens_of_its_likelihood():
    theirs = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    chosen, rejected = -0.01 - torch.rand(2, 50) * 5
    odds = orpo_loss(chosen, rejected, 0.3) - sft_sequence_loss(chosen)
    torch.testing.assert_close(odds, -ORPOTrainer.odds_ratio_loss(theirs, chosen, rejected)[0], rtol=1e-5, atol=1e-5)


def test_mean_log_probabilities_are_those_of_trls_trainers():
    model, example, place = neox(), THREE[0], 1
    ids = torch.tensor([[*example.prompt, *example.completions[place]]])
    labels = torch.where(torch.arange(ids.shape[1]) < len(example.prompt), -100, ids)
    theirs = CPOTrainer.get_batch_logps(model(ids).logits, labels, average_log_prob=True)
    values = plain_values(model, [example._replace(chosen=[place], rejected=[0])], DpoConfig())
    torch.testing.assert_close(values.chosen_mean_logps, theirs)


# Weights of pairs


@pytest.mark.parametrize("wpo", [False, True])
@pytest.mark.parametrize("name", [name for name in TRL_LOSSES if name not in NOT_OF_PAIRS])
def test_trls_losses_are_weighed_by_prompt(folder, name, wpo):
    config = DpoConfig(weight_pairs="prompt", beta=0.3)
    trainer, packs = ours(folder, SCORED, PACKINGS["in packs"], config, use_weighting=wpo)
    trainer.loss_types, trainer.label_smoothing = [name], 0.1
    settings = {"loss_type": [name], "label_smoothing": 0.1, "beta": 0.3, "use_weighting": wpo}
    theirs, _ = pairwise(neox(), SCORED, arguments(folder, **settings))
    each = [gradient(theirs, [theirs.data_collator([row])]) for row in theirs.train_dataset]
    weights = [1 / len(example.chosen) / len(SCORED) for example in SCORED for _ in example.chosen]
    expected = [sum(w * own for w, own in zip(weights, values, strict=True)) for values in zip(*each, strict=True)]
    assert_same(gradient(trainer, packs), (expected[0], expected[1]))


@pytest.mark.parametrize("packing", PACKINGS)
def test_one_pair_a_prompt_is_as_without_weights(folder, packing):
    single = [example._replace(chosen=example.chosen[:1], rejected=example.rejected[:1]) for example in SCORED]
    every, by_prompt = (
        gradient(*ours(folder, single, PACKINGS[packing], DpoConfig(weight_pairs=weights)))
        for weights in ("pair", "prompt")
    )
    assert_same(by_prompt, every)


def trained(folder, own: list[DpoExample], limits: Limits, config: DpoConfig):
    """Train for an epoch; return the weights in a row, and what was logged of each step."""
    more = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "optim": "sgd"}
    trainer, _ = ours(folder, own, limits, config, **more)
    trainer.train()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return weights, [entry for entry in trainer.state.log_history if "loss" in entry]


UNEVEN = [SCORED[0], *(SCORED[2]._replace(prompt=[i] * 6) for i in range(2, 8))]


@pytest.mark.parametrize(
    "config",
    [
        DpoConfig(weight_pairs="prompt"),
        DpoConfig(weight_pairs="prompt", loss_type="simpo"),
        DpoConfig(loss_type="orpo"),
    ],
    ids=["dpo", "simpo", "orpo"],
)
def test_an_epoch_and_its_log_do_not_depend_on_the_packing(folder, config):
    whole, log = trained(folder, UNEVEN, Limits(4, 10**9, 1, True), config)
    packed, packed_log = trained(folder, UNEVEN, Limits(4, 14, 1, True), config)
    assert len(log) == 3
    torch.testing.assert_close(packed, whole, rtol=0, atol=1e-6)
    for name in ("loss", "rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/chosen"):
        assert [entry[name] for entry in packed_log] == pytest.approx([entry[name] for entry in log], rel=1e-4), name


@pytest.mark.parametrize("weights", ["pair", "prompt"])
@pytest.mark.parametrize(("name", "scale"), [("simpo", 2.0), ("orpo", 1.0), ("rebel", None)])
def test_what_is_logged_by_hand(folder, name, scale, weights):
    config = DpoConfig(loss_type=name, weight_pairs=weights, beta=0.1)
    _, (entry,) = trained(folder, SCORED, PACKINGS["in packs"], config)
    with torch.no_grad():
        values = plain_values(neox(), SCORED, config)
    chosen, rejected = values.rewards if scale is None else scale * values.mean_logps
    assert entry["rewards/chosen"] == pytest.approx(float(values.mean(chosen)), rel=1e-4)
    assert entry["rewards/margins"] == pytest.approx(float(values.mean(chosen - rejected)), rel=1e-4)
    assert entry["rewards/accuracies"] == pytest.approx(float(values.mean((chosen > rejected).float())), rel=1e-4)
    assert entry["logps/rejected"] == pytest.approx(float(values.mean(values.logps[1])), rel=1e-4)
