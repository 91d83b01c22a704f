"""Which model along a training is kept: by a held-out reward, with what publishing reads of an aligned model."""

import numpy as np
import pytest
from evaluated import samples
from pair_tables import PAIRS, completions_of, draft, pairs_of, prompts_of, tiny_policy
from safetensors.numpy import load_file

from tasks.choose_snapshot import choose, choose_snapshot
from tasks.config.training import DpoConfig, Lora
from tasks.dpo import train_dpo
from tasks.models.loading import model_folder
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.parquet import table_bytes
from tasks.training.snapshots import LAST, snapshots

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3, "scheduler": "constant", "warmup_ratio": 0.0}
HELD_OUT = ("held_out_model",)


def evaluation(store: Store, **models: list[float | None]) -> Artifact:
    """Commit the evaluation of models: what the held-out reward gives each of three prompts; the reference has 0."""
    given = {name: {HELD_OUT[0]: [[value] for value in values]} for name, values in models.items()}
    rows = samples(sft={HELD_OUT[0]: [[0.0]] * 3}, **given)
    stats = {"reference": "sft", "policies": {"sft": {}, **given}}
    files = {"samples.parquet": table_bytes(rows, "evaluation")}
    name = sha256_of(repr(models).encode())
    return draft(store, name).commit("evaluation", files, name, stats=stats)


PEAKS = {"step-2": [0.0, 0.1, 0.0], "step-4": [2.0, 3.0, 2.0], "last": [1.0, 1.5, 1.0]}
RISES = {"step-2": [0.0, 0.1, 0.0], "step-4": [1.0, 1.5, 1.0], "last": [2.0, 3.0, 2.0]}


def test_the_model_before_the_fall_by_hand(tmp_path):
    store = Store(str(tmp_path))
    name, found = choose(evaluation(store, **PEAKS), HELD_OUT)
    assert (name, found) == ("step-4", pytest.approx({"step-2": 0.1 / 3, "step-4": 7 / 3, "last": 3.5 / 3}))
    assert choose(evaluation(store, **RISES), HELD_OUT)[0] == LAST
    lost = PEAKS | {"step-4": [None, 3.0, None]}
    with pytest.raises(ValueError, match="1 of them have a reward by held_out_model for every model: hold out more"):
        choose(evaluation(store, **lost), HELD_OUT)


@pytest.mark.parametrize("lora", [None, Lora(r=2)], ids=["whole", "adapters"])
def test_the_kept_model_is_the_snapshot_and_the_training_is_the_same(tmp_path, lora):
    store = Store(str(tmp_path / "store"))
    policy = tiny_policy(store, tmp_path / "policy")
    tables = pairs_of(store, PAIRS), completions_of(store, [["a", "b", "c"]])
    dpo = DpoConfig(**SETTINGS, max_steps=6, lora=lora, snapshots=2, keep="best")
    trained = train_dpo.body(draft(store, "long"), policy, policy, *tables, prompts_of(store), dpo)
    kept = choose_snapshot.body(draft(store, "kept"), trained, policy, evaluation(store, **PEAKS), dpo, HELD_OUT)
    expected = load_file(model_folder(snapshots(trained, policy)["step-4"]) / "model.safetensors")
    found = load_file(model_folder(kept) / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert (kept.rows, kept.stats["kept"]) == (trained.rows, "step-4")
    files = read_manifest(kept.uri).files.keys()
    assert {"training_log.parquet", "config.json"} <= files
    assert ("adapter/adapter_model.safetensors" in files) == (lora is not None)
    last = choose_snapshot.body(draft(store, "last"), trained, policy, evaluation(store, **RISES), dpo, HELD_OUT)
    assert (last.digest, last.stats["kept"]) == (trained.digest, LAST)
    assert read_manifest(last.uri).files.keys() == read_manifest(trained.uri).files.keys()


def test_the_last_model_is_kept_as_it_is_and_costs_nothing(tmp_path):
    model = Artifact(kind="model", uri="u", digest="d")
    given = choose_snapshot.options["given"]
    assert given(model, DpoConfig()) is model
    assert given(model, DpoConfig(snapshots=1, keep="best")) is None
    assert "keep" not in DpoConfig(snapshots=1, keep="best").key_fields()
    with pytest.raises(ValueError, match=r"dpo.keep = best chooses among dpo.snapshots = 0 models: set it to 1"):
        DpoConfig(keep="best")
