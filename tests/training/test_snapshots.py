"""Models that are kept along a DPO training: what a shorter training would have given, whole or as adapters."""

import numpy as np
import pytest
from pair_tables import PAIRS, completions_of, draft, pairs_of, prompts_of, tiny_policy
from safetensors.numpy import load_file

from tasks.config.training import DpoConfig, Lora
from tasks.dpo import train_dpo
from tasks.models.loading import model_folder
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.training.snapshots import snapshot_steps, snapshots

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3, "scheduler": "constant", "warmup_ratio": 0.0}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def policy(store, tmp_path) -> Artifact:
    return tiny_policy(store, tmp_path / "policy")


def train(store: Store, policy: Artifact, steps: int, name: str, **changes) -> Artifact:
    tables = pairs_of(store, PAIRS), completions_of(store, [["a", "b", "c"]])
    config = DpoConfig(**SETTINGS | {"max_steps": steps, "lora": None} | changes)
    return train_dpo.body(draft(store, name), policy, policy, *tables, prompts_of(store), config)


def weights(model: Artifact) -> dict[str, np.ndarray]:
    return load_file(model_folder(model) / "model.safetensors")


def test_steps_by_hand():
    assert snapshot_steps(10, 1) == [5]
    assert snapshot_steps(12, 3) == [3, 6, 9]
    assert snapshot_steps(3, 5) == [1, 2], "no more than there are, and the last model apart"
    assert snapshot_steps(1, 2) == []
    assert snapshot_steps(100, 0) == []


@pytest.mark.parametrize("lora", [None, Lora(r=2)], ids=["whole", "adapters"])
def test_a_snapshot_is_what_a_training_of_its_length_gives(store, policy, lora):
    model = train(store, policy, 6, "long", snapshots=2, lora=lora)
    found = snapshots(model, policy)
    assert list(found) == ["step-2", "step-4"]
    assert {each.kind for each in found.values()} == ({"model"} if lora is None else {"adapter"})
    for name, kept in found.items():
        shorter = train(store, policy, int(name[-1]), f"short{name[-1]}", lora=lora)
        expected = weights(shorter)
        assert weights(kept).keys() == expected.keys()
        for tensor, values in weights(kept).items():
            np.testing.assert_allclose(values, expected[tensor], atol=1e-6)
    assert model.digest == train(store, policy, 6, "without", lora=lora).digest, "keeping models changes nothing"


def test_a_model_whose_snapshot_is_lost_is_made_again(store, policy):
    model = train(store, policy, 2, "long", snapshots=1)
    (kept,) = snapshots(model, policy).values()
    assert store.find(store.folder_of(model)) is not None
    store.delete(store.folder_of(kept))
    assert store.find(store.folder_of(model)) is None


def test_without_snapshots_there_is_no_curve(store, policy):
    assert snapshots(train(store, policy, 1, "plain"), policy) == {}


def test_a_store_that_is_moved_takes_its_snapshots_along(store, policy, tmp_path):
    model = train(store, policy, 2, "long", snapshots=1)
    assert str(tmp_path) not in str(model.stats)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    moved = Store(str(tmp_path / "elsewhere")).find(store.folder_of(model))
    (kept,) = snapshots(moved, policy).values()
    assert (model_folder(kept) / "model.safetensors").is_relative_to(tmp_path / "elsewhere")
