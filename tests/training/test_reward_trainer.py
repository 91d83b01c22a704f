"""Reward models against TRL's own trainer, which forwards both sides of every pair: equal gradients and weights."""

import pytest
import torch
from little_memory import holds
from reward_steps import gradient, llama, neox, ours, pairs, theirs, weights, without_margins
from transformers import BertConfig, BertForSequenceClassification

from tasks.config.errors import ConfigurationError
from tasks.config.settings import RewardModelConfig

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = pairs()
EVERY = {"batch_size": 64}  # all 24 pairs in one step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reward")


def one_step(trainer):
    return gradient(trainer, trainer.data_collator([{"share": 0}]))


@pytest.mark.parametrize("tokens", [8192, 60, 1], ids=["a pass", "some", "a pair a pass"])
@pytest.mark.parametrize(
    ("loss", "changes"),
    [("bradley_terry", {}), ("margin", {}), ("centred", {"center_rewards_coefficient": 0.01})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_in_float64_gradients_are_trls(folder, loss, changes, tokens):
    rows = ROWS if loss == "margin" else without_margins(ROWS)
    trainer = ours(folder, neox().double(), rows, RewardModelConfig(loss=loss, tokens_per_batch=tokens, **EVERY))
    assert trainer.data_collator.examples.shared
    found, value = one_step(trainer)
    other = theirs(folder, neox().double(), rows, **changes)
    kept = [{name: row[name] for name in other.train_dataset.column_names} for row in rows]
    expected, loss_value = gradient(other, other.data_collator(kept))
    bound = 1e-7 if loss == "margin" else 1e-12  # TRL's collator rounds margins to float32
    assert float((found - expected).norm() / expected.norm()) < bound
    assert value == pytest.approx(loss_value, rel=1e-6)


@pytest.mark.parametrize("tokens", [8192, 100])
def test_after_epochs_weights_are_trls(folder, tokens):
    """The same pairs in the same order, the last step with what is left."""
    rows = without_margins(pairs(15))
    config = RewardModelConfig(batch_size=8, epochs=2, tokens_per_batch=tokens, seed=3)
    trainer = ours(folder, llama(), rows, config)
    trainer.train()
    other = theirs(folder, llama(), rows, per_device_train_batch_size=8, num_train_epochs=2, seed=3)
    other.train()
    assert len(rows) % 8
    assert trainer.state.global_step == other.state.global_step == 8
    assert float((weights(trainer.model) - weights(other.model)).abs().max()) < 1e-6
    assert float((weights(trainer.model) - weights(llama())).abs().max()) > 1e-3
    mine, logged = ([entry for entry in own.state.log_history if "accuracy" in entry] for own in (trainer, other))
    for name in ("loss", "accuracy", "margin"):
        assert [entry[name] for entry in mine] == pytest.approx([entry[name] for entry in logged], rel=1e-4), name


def test_each_completion_and_each_prompt_is_forwarded_once(folder):
    rows = without_margins(pairs(2))  # one prompt with three pairs of three completions, one with one pair
    trainer, sizes = ours(folder, llama(), rows, RewardModelConfig(**EVERY)), []
    hook = trainer.model.get_input_embeddings().register_forward_hook(lambda *call: sizes.append(len(call[-1])))
    one_step(trainer)
    hook.remove()
    assert sum(sizes) == 2 + 3 + 2


def test_a_head_that_reads_more_than_the_last_state(folder):
    """BERT's reward is of its first token: whole sequences, padded to like lengths, through the model's own forward."""

    def bert():
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = BertConfig(vocab_size=40, pad_token_id=0, num_labels=1, initializer_range=0.3, **shape)
        return BertForSequenceClassification(config).eval()

    rows = without_margins(ROWS)
    trainer = ours(folder, bert(), rows, RewardModelConfig(tokens_per_batch=100, **EVERY))
    assert not trainer.data_collator.examples.shared
    found, value = one_step(trainer)
    other = theirs(folder, bert(), rows)
    kept = [{name: row[name] for name in ("chosen_ids", "rejected_ids")} for row in rows]
    expected, loss_value = gradient(other, other.data_collator(kept))
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert value == pytest.approx(loss_value, rel=1e-5)


def test_with_gradient_checkpointing(folder):
    rows, extra = without_margins(ROWS), {"gradient_checkpointing": True}
    config = RewardModelConfig(tokens_per_batch=100, extra=extra, batch_size=8, max_steps=2)
    plain = config.model_copy(update={"extra": {}})
    found = []
    for own in (config, plain):
        trainer = ours(folder, llama(), rows, own, **own.extra)
        trainer.train()
        found.append(weights(trainer.model))
    assert float((found[0] - found[1]).abs().max()) < 1e-6


# Losses of prompts


def test_k_comparisons_weigh_each_prompt_the_same(folder):
    rows = without_margins(pairs(2))
    trainer = ours(folder, llama(), rows, RewardModelConfig(loss="k_comparisons", batch_size=2))
    model = llama()
    with torch.no_grad():
        gaps = [_reward(model, row["chosen_ids"]) - _reward(model, row["rejected_ids"]) for row in rows]
        of_pairs = -torch.nn.functional.logsigmoid(torch.stack(gaps))
    _, loss = one_step(trainer)
    assert loss == pytest.approx(float((of_pairs[:3].mean() + of_pairs[3]) / 2), rel=1e-5)
    assert len(trainer.data_collator.steps[0]) == 2  # prompts


def test_a_pair_that_stands_twice_weighs_twice_in_k_comparisons(folder):
    rows = without_margins(pairs(2))  # the last one is the only pair of its prompt
    config = RewardModelConfig(loss="k_comparisons", batch_size=2)
    (_, once), (_, twice), (_, alone) = (
        one_step(ours(folder, llama(), own, config)) for own in (rows, [*rows, rows[3]], rows[3:])
    )
    assert twice == pytest.approx(once + alone / 2, rel=1e-5)


def test_plackett_luce_on_two_rankings(folder):
    rows = without_margins(pairs(2))  # a > b > c of the first prompt, a > b of the second
    trainer = ours(folder, llama(), rows, RewardModelConfig(loss="plackett_luce", batch_size=2))
    model = llama()
    with torch.no_grad():
        a, b, c = (
            _reward(model, ids) for ids in (rows[0]["chosen_ids"], rows[0]["rejected_ids"], rows[1]["rejected_ids"])
        )
        first = -(a - torch.stack([a, b, c]).logsumexp(0)) - (b - torch.stack([b, c]).logsumexp(0))
        second = -torch.nn.functional.logsigmoid(
            _reward(model, rows[3]["chosen_ids"]) - _reward(model, rows[3]["rejected_ids"])
        )
    _, loss = one_step(trainer)
    assert loss == pytest.approx(float((first + second) / 2), rel=1e-5)


def _reward(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0, 0]


@pytest.mark.parametrize("loss", ["k_comparisons", "plackett_luce"])
def test_the_budget_changes_no_gradient(folder, loss):
    found = []
    for tokens in (8192, 60):
        trainer = ours(
            folder, llama(), without_margins(ROWS), RewardModelConfig(loss=loss, tokens_per_batch=tokens, **EVERY)
        )
        found.append(one_step(trainer))
    (whole, value), (parts, other) = found
    assert float((whole - parts).norm() / whole.norm()) < 1e-5
    assert other == pytest.approx(value, rel=1e-5)


# Memory


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_step_that_runs_out_of_memory_is_the_same_step(folder, backward, capsys):
    config, found = RewardModelConfig(batch_size=8, max_steps=3), []
    for most in (1 << 30, 40):
        trainer = ours(folder, llama(), without_margins(ROWS), config)
        with holds(trainer.model, most, backward) as fit:
            trainer.train()
        found.append((weights(trainer.model), [e["accuracy"] for e in trainer.state.log_history if "accuracy" in e]))
    assert "out of memory at" in capsys.readouterr().out
    assert max(fit) <= 40
    assert trainer.data_collator.budget < 8192
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1])


def test_a_pair_that_does_not_fit_is_named(folder):
    trainer = ours(folder, llama(), without_margins(ROWS), RewardModelConfig(batch_size=8, max_steps=1))
    with (
        holds(trainer.model, 3),
        pytest.raises(ConfigurationError, match=r"^an example of \d+ tokens .*: set reward_model.lora"),
    ):
        trainer.train()
