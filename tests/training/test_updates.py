"""Updates that rounding loses: by hand, after training in bfloat16, and what is said of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from trainings import examples, losses
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.config.training import DpoConfig, Lora, Training
from tasks.examples.world import write_base_model
from tasks.models.loading import load_policy
from tasks.models.updates import measure_update, stored_type, warn_of_loss
from tasks.store.artifacts import Artifact, Provenance, files_digest
from tasks.store.copies import fetch
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.training.trained_model import commit_model, trained

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"max_steps": 8, "batch_size": 4, "logging_steps": 1, "learning_rate": 2e-4, "dtype": "bfloat16"}
SETTINGS |= {"scheduler": "constant", "warmup_ratio": 0.0}
STAGES: dict[str, Training] = {
    "sft": SftConfig(base_model=ModelSource(path="given"), **SETTINGS),
    "reward_model": RewardModelConfig(**SETTINGS),
    "dpo": DpoConfig(**SETTINGS, tokens_per_batch=100, lora=None),
}


def measured(before: list[float], after: list[float]) -> dict[str, dict[str, float]]:
    return measure_update([("w", torch.tensor(before))], {"w": torch.tensor(after)})


def test_the_share_that_is_kept_by_hand():
    # From 1 to 2, bfloat16 moves in steps of 2^-7 and float16 in steps of 2^-10. Of the updates 2^-7, 2^-10 and 0,
    # bfloat16 keeps the first.
    found = measured([1.0, 1.0, 3.0], [1 + 2**-7, 1 + 2**-10, 3.0])
    assert found["kept"]["bfloat16"] == pytest.approx(1 - 2**-20 / (2**-14 + 2**-20), abs=1e-6)
    assert found["moved"]["bfloat16"] == 0.5
    assert found["kept"]["float16"] == found["kept"]["float32"] == found["moved"]["float16"] == 1
    # 3/4 of a step is rounded to a whole one: a third of it too much is as bad as a third of it too little.
    assert measured([1.0], [1 + 0.75 * 2**-7])["kept"]["bfloat16"] == pytest.approx(1 - 1 / 9, abs=1e-6)
    # What the start itself loses is no loss of the update; a step over an edge is more than the update was.
    assert measured([1 + 2**-9], [1 + 2**-9 + 2**-7])["kept"]["bfloat16"] == 1
    assert measured([1 + 0.49 * 2**-7], [1 + 0.51 * 2**-7])["kept"]["bfloat16"] == 0


def test_weights_that_were_not_there_before_do_not_count():
    found = measure_update([("w", torch.ones(2))], {"w": torch.ones(2) + 2**-7, "new": torch.ones(9)})
    assert found["kept"]["bfloat16"] == 1


def test_no_update_is_kept():
    all_of_it = dict.fromkeys(("float32", "bfloat16", "float16"), 1.0)
    assert measured([1.0], [1.0]) == {"kept": all_of_it, "moved": all_of_it}


def test_the_stored_type_is_wide_enough_where_none_is_wanted():
    assert stored_type(None, "bfloat16", {"bfloat16": 0.99}) == "bfloat16"
    assert stored_type(None, "bfloat16", {"bfloat16": 0.98}) == "float32"
    assert stored_type("bfloat16", "bfloat16", {"bfloat16": 0.2}) == "bfloat16"


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Artifact:
    """Return the world's untrained model, rounded to bfloat16."""
    store, folder = Store(str(tmp_path_factory.mktemp("start"))), tmp_path_factory.mktemp("base")
    write_base_model(folder, seed=0)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    files = {path.name: path for path in folder.iterdir()}
    draft = Draft(store, Provenance(stage="store_model", version=1, key="k"))
    return draft.commit("model", files, files_digest(files))


def train(stage: str, store: Store, start: Artifact, **changes: object) -> Artifact:
    draft, config = Draft(store, Provenance(stage=stage, version=1, key="k")), STAGES[stage].model_copy(update=changes)
    with trained(draft, f"tasks.{stage}:fit", start, config, [examples(stage)]) as folder:
        return commit_model(draft, start, folder, {"examples": 32})


def weights(model: Artifact) -> dict[str, torch.Tensor]:
    return load_file(fetch(model) / "model.safetensors")


def by_hand(start: Artifact, adapter: Path) -> dict[str, torch.Tensor]:
    """Return W + alpha / r * B A of each weight that an adapter changes, in float64, rounded to float32."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    factors, found, base = load_file(adapter / "adapter_model.safetensors"), {}, weights(start)
    for name, a in factors.items():
        if name.endswith("lora_A.weight"):
            own = name.removeprefix("base_model.model.").removesuffix("lora_A.weight") + "weight"
            b = factors[name.replace("lora_A", "lora_B")]
            found[own] = (base[own].double() + config["lora_alpha"] / config["r"] * b.double() @ a.double()).float()
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_an_adapter_is_merged_in_float32_and_rounded_once(stage, start, tmp_path, capsys):
    lora = {"lora": Lora(r=2), "learning_rate": 2e-5}
    model = train(stage, Store(str(tmp_path / "store")), start, **lora)
    update, folder = model.stats["update"], fetch(model)
    assert update["stored"] == "float32"
    assert update["computed_in"] == "bfloat16"
    assert update["kept"]["bfloat16"] < 0.9
    assert update["moved"]["bfloat16"] < 0.9
    assert update["kept"]["float32"] == pytest.approx(1, abs=1e-3)
    assert "the model is stored in float32: bfloat16 keeps" in capsys.readouterr().out
    expected, found, base = by_hand(start, folder / "adapter"), weights(model), weights(start)
    assert len(expected) > 4
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-8)
        assert (found[name] != base[name].float()).any()
    updates = {name: weight - base[name].float() for name, weight in expected.items()}
    lost = sum(float((base[n].float() + u - expected[n].bfloat16().float()).square().sum()) for n, u in updates.items())
    size = sum(float(u.square().sum()) for u in updates.values())
    assert update["kept"]["bfloat16"] == pytest.approx(1 - lost / size, abs=2e-3)

    narrow = train(stage, Store(str(tmp_path / "narrow")), start, **lora, stored_dtype="bfloat16")
    assert "WARNING: the stored bfloat16 weights keep" in capsys.readouterr().out
    for name, weight in weights(narrow).items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, found[name].bfloat16()), "rounded more than once"


@pytest.mark.parametrize("stage", STAGES)
def test_full_fine_tuning_is_measured_too(stage, start, tmp_path):
    model = train(stage, Store(str(tmp_path)), start, lora=None, learning_rate=1e-5)
    assert model.stats["update"]["stored"] == "float32"
    assert 0 < model.stats["update"]["kept"]["bfloat16"] < 0.9
    assert {weight.dtype for weight in weights(model).values()} == {torch.float32}
    assert "adapter/adapter_config.json" not in read_manifest(model.uri).files
    assert [step for step, _ in losses(model)] == list(range(1, 9))


def test_a_large_update_is_stored_as_it_was_computed(start, tmp_path, capsys):
    model = train("sft", Store(str(tmp_path)), start, learning_rate=0.05)
    assert model.stats["update"]["stored"] == "bfloat16"
    assert model.stats["update"]["kept"]["bfloat16"] > 0.99
    assert {weight.dtype for weight in weights(model).values()} == {torch.bfloat16}
    assert "stored" not in capsys.readouterr().out


@pytest.mark.parametrize("uri", ["file", "s3"])
def test_the_adapter_loads_over_its_base(uri, request, start, tmp_path, monkeypatch):
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "cache"))
    store = Store(request.getfixturevalue("s3_uri") if uri == "s3" else str(tmp_path / "store"))
    model = train("dpo", store, start, lora=Lora(r=2))
    folder = fetch(model)
    config = (folder / "adapter" / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] == start.digest
    assert str(tmp_path) not in config
    assert start.uri not in config
    base = load_policy(fetch(start), torch.float32, False)
    adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()
    merged = load_policy(folder, torch.float32, False)
    ids = torch.arange(10, 30)[None]
    with torch.inference_mode():
        torch.testing.assert_close(adapted(ids).logits, merged.eval()(ids).logits, rtol=0, atol=1e-5)
    files = read_manifest(model.uri).files
    own = {name: folder / name for name in files if "/" not in name and name != "training_log.parquet"}
    assert model.digest == files_digest(own)
    assert (fetch(model, weights=False) / "config.json").exists()


def test_a_reward_adapter_holds_the_head(start, tmp_path):
    model = train("reward_model", Store(str(tmp_path)), start, lora=Lora(r=2))
    factors = load_file(fetch(model) / "adapter" / "adapter_model.safetensors")
    head = next(value for name, value in factors.items() if name.endswith("score.weight"))
    assert head.dtype == torch.float32
    assert torch.equal(head, weights(model)["score.weight"])
    assert AutoModelForSequenceClassification.from_pretrained(fetch(model)).config.num_labels == 1


def test_loading_in_a_type_that_loses_the_update_is_warned_of(capsys):
    stats = {"update": {"kept": {"bfloat16": 0.47, "float32": 1.0}}}
    model = Artifact(kind="model", uri="u", digest="d", stats=stats)
    warn_of_loss(model, "float32", "sampling.dtype")
    warn_of_loss(Artifact(kind="model", uri="u", digest="d"), "bfloat16", "sampling.dtype")
    assert capsys.readouterr().out == ""
    warn_of_loss(model, "bfloat16", "sampling.dtype")
    assert "WARNING: sampling.dtype = bfloat16 keeps 47% of the update" in capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES)
def test_training_in_bfloat16_is_near_training_in_float32(stage, start, tmp_path):
    half, full = (
        losses(train(stage, Store(str(tmp_path / dtype)), start, dtype=dtype, lora=Lora(r=2)))
        for dtype in ("bfloat16", "float32")
    )
    np.testing.assert_allclose([loss for _, loss in half], [loss for _, loss in full], rtol=0.05)
