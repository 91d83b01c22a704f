"""Trackers: TensorBoard's files go into the store, others are passed through, what is not installed is refused."""

import functools

import pytest
from commits import EVERY_STORE
from trainings import STOP, losses, train

from tasks.config.errors import ConfigurationError
from tasks.config.settings import SftConfig
from tasks.config.training import DpoConfig
from tasks.store.copies import fetch
from tasks.store.folders import Store
from tasks.store.manifests import read_files, read_manifest
from tasks.training.trackers import check_trackers, event_files

pytestmark = pytest.mark.usefixtures("one_thread")
TENSORBOARD = {"report_to": "tensorboard"}


def scalars(model):
    """Return step and loss as TensorBoard shows them of an artifact's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(fetch(model) / "tensorboard")).Reload()
    return [(event.step, pytest.approx(event.value)) for event in shown.Scalars("train/loss")]


def reports(uri):
    return [name for name in read_manifest(uri).files if name.startswith("tensorboard/")]


@EVERY_STORE
def test_tensorboard_files_are_beside_the_model(store, start, undisturbed):
    model = train("sft", store, start, extra=TENSORBOARD)
    assert reports(model.uri) == ["tensorboard/events.out.tfevents.000"]
    assert losses(model) == scalars(model)
    assert len(losses(model)) == 10
    assert model.digest == undisturbed("sft").digest  # it is the same model


def test_a_training_that_goes_on_elsewhere_keeps_them(tmp_path, start, preempted, another_worker, undisturbed):
    store = Store(str(tmp_path / "store"))
    preempted("dpo", store, STOP, functools.partial(train, extra=TENSORBOARD))
    assert reports(f"{store.uri}/checkpoints/dpo/k/step-{STOP}") == ["tensorboard/events.out.tfevents.000"]
    model = train("dpo", store, start, extra=TENSORBOARD)
    assert len(reports(model.uri)) == 2
    assert losses(model) == scalars(model) == losses(undisturbed("dpo"))
    assert model.digest == undisturbed("dpo").digest


def test_without_a_tracker_there_are_no_files(undisturbed):
    assert set(read_files(undisturbed("sft"))) & {"model.safetensors", "training_log.parquet"}
    assert reports(undisturbed("sft").uri) == []


def test_files_are_numbered_in_their_order(tmp_path):
    """A host's name could be no name in a store."""
    for place, name in [("before", "1.old host.7.0"), ("since/runs/a", "2.h.7.0"), ("since/runs/b", "10.h.7.0")]:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"events.out.tfevents.{name}").write_text(name)
    found = event_files(tmp_path / "before", tmp_path / "since", tmp_path / "missing")
    assert list(found) == [f"tensorboard/events.out.tfevents.00{n}" for n in range(3)]
    assert set(found.values()) == {b"1.old host.7.0", b"2.h.7.0", b"10.h.7.0"}
    assert found["tensorboard/events.out.tfevents.000"] == b"1.old host.7.0"


def test_wandb_offline(tmp_path, start, undisturbed, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    model = train("sft", Store(str(tmp_path / "store")), start, extra={"report_to": ["wandb"], "run_name": "mine"})
    assert model.digest == undisturbed("sft").digest
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 1


# What is refused


def test_a_tracker_that_is_not_installed(monkeypatch, tmp_path, start):
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"])
    check_trackers(DpoConfig(extra={"report_to": ["tensorboard"]}))
    for given in ("all", "none", ["none"], [], None):
        check_trackers(DpoConfig(extra={"report_to": given}))
    with pytest.raises(ConfigurationError, match=r"dpo.extra.report_to = 'wandb' .*: python -m pip install wandb, or"):
        check_trackers(DpoConfig(extra={"report_to": ["tensorboard", "wandb"]}))
    with pytest.raises(ConfigurationError, match="pip install comet-ml"):
        check_trackers(SftConfig(ready_model="m", extra={"report_to": "comet_ml"}))
    with pytest.raises(ConfigurationError, match=r"sft.extra.report_to = 'wandb' is not installed here"):
        train("sft", Store(str(tmp_path)), start, extra={"report_to": "wandb"})  # a worker, of its own packages
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_nobody_knows():
    with pytest.raises(ConfigurationError, match=r"report_to = 'abacus' is no tracker .*: take one of all, azure_ml,"):
        check_trackers(DpoConfig(extra={"report_to": "abacus"}))
