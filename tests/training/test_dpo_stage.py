"""The stage itself with losses that read more, or less, than DPO: rewards, no reference, completions of others."""

from pathlib import Path

import pytest
from pair_tables import PAIRS, completions_of, draft, pairs_of, prompts_of, tiny_policy
from random_groups import tokenizer

from tasks.config.errors import ConfigurationError
from tasks.config.training import DpoConfig
from tasks.dpo import train_dpo
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.training.dpo_examples import ExampleBuilder, sequence_id
from tasks.training.reference import WITHOUT_REF, read_examples
from tasks.training.trained_model import write_tables
from tasks.training.unrelated import add_unrelated

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"max_steps": 2, "batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3, "lora": None}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def policy(store, tmp_path) -> Artifact:
    return tiny_policy(store, tmp_path / "policy")


def train(store: Store, policy: Artifact, pairs=PAIRS, **changes) -> Artifact:
    tables = pairs_of(store, pairs, lambda chosen, rejected: 0.5 + chosen), completions_of(store, [["a", "b", "c"]])
    config = DpoConfig(**SETTINGS | changes)
    return train_dpo.body(draft(store, "aligned"), policy, policy, *tables, prompts_of(store), config)


def log_of(model: Artifact) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in read_table(Artifact(kind="training_log", uri=model.uri, digest=model.digest)).to_pylist():
        found.setdefault(row["metric"], []).append(row["value"])
    return found


@pytest.mark.parametrize("names", ["simpo", "orpo", ["simpo", "sft_sequence"], ["orpo", "sft"]], ids=str)
def test_without_a_reference_none_is_computed(store, policy, names):
    model = train(store, policy, loss_type=names)
    assert model.stats["ref_logps_computed"] == 0
    assert model.stats["completions"] == 5
    assert model.stats.keys() >= {"accuracy", "margin"}
    assert not model.stats.keys() & {"chosen_log_ratio", "rejected_log_ratio"}
    assert not list(Path(store.root).glob("**/ref_logps*"))
    assert all(value < 0 for value in log_of(model)["rewards/chosen"])  # a mean log-probability, and no log-ratio


def test_with_rewards(store, policy):
    model = train(store, policy, loss_type="rebel", beta=0.1)
    assert model.stats["ref_logps_computed"] == 5
    # Margins are 0 before the first step: the loss is the mean of 1.5^2, 1.5^2, 0.5^2 and 1.5^2.
    assert log_of(model)["loss"][0] == pytest.approx((3 * 1.5**2 + 0.5**2) / 4, rel=1e-4)


def test_with_rewards_and_weights_by_prompt(store, policy):
    model = train(store, policy, loss_type="rebel", weight_pairs="prompt")
    of_a = (2 * 1.5**2 + 0.5**2) / 3
    assert log_of(model)["loss"][0] == pytest.approx((of_a + 1.5**2) / 2, rel=1e-4)


def test_with_completions_of_others(store, policy):
    model = train(store, policy, loss_type="kto")
    assert model.stats["completions"] == 5
    assert model.stats["ref_logps_computed"] == 5 + 2
    log = log_of(model)
    assert log["loss"][0] == pytest.approx(0.5, rel=1e-4)  # all at the reference point
    assert log["kl"][0] == pytest.approx(0, abs=1e-4)


def test_one_prompt_has_no_others(store, policy):
    with pytest.raises(ConfigurationError, match="kto needs pairs of two prompts or more, and there is 1"):
        train(store, policy, [("a", 1, 0)], loss_type="kto")


def test_the_completion_of_another_prompt_by_hand(store, tmp_path):
    builder = ExampleBuilder(pairs_of(store, PAIRS), prompts_of(store), tokenizer(), 5)
    write_tables(tmp_path / WITHOUT_REF, builder.build(store, completions_of(store, [["a"], ["b"], ["c"]])))
    add_unrelated(tmp_path, 5)
    a, b = (row for table in read_examples(tmp_path) for row in table.to_pylist())
    assert (a["unrelated"], a["completions"][3], a["completion_ids"]) == (3, [20, 21, 22], [0, 1, 3, -1])  # cut at 5
    assert a["sequence_ids"][3] == sequence_id(a["prompt"], (20, 21, 22))
    assert (b["unrelated"], b["completions"]) == (2, [[20, 21, 22, 0], [23, 0], [11, 0]])
    assert (b["chosen"], b["rejected"]) == ([1], [0])
