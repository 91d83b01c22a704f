"""The card beside the aligned model: a file that no manifest lists, in any store."""

import time
from pathlib import Path

import pytest
from commits import EVERY_STORE, MODEL, commit_model, local_files
from kept_store import kept_run

from tasks.inspection.catalog import read_catalog
from tasks.inspection.prune import prune
from tasks.pipeline.site import Site
from tasks.publishing.card import card_text, write_card
from tasks.publishing.facts import gather
from tasks.store.copies import fetch
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.runs import Run, RunRecord

pytestmark = pytest.mark.filterwarnings("error")


def site_of(store: Store, run: Run) -> Site:
    return Site(store, record=RunRecord(store, run))


def card_in(store: Store, run: Run) -> str:
    """Return the card that lies beside the weights."""
    folder = run.artifacts["aligned"]
    weights = read_manifest(f"{store.uri}/{folder}").files["model.safetensors"].path
    return store.fs.cat_file(store.path(f"{folder}/{weights.replace('model.safetensors', 'README.md')}")).decode()


def test_it_lies_beside_the_weights_and_costs_nothing(kept):
    store, run = kept
    start = time.perf_counter()
    write_card(site_of(store, run))
    assert time.perf_counter() - start < 0.5
    assert card_in(store, run).startswith("---\nlibrary_name: transformers\n")
    assert not list((fetch(store.find(run.artifacts["aligned"]))).glob(".partial*"))


def test_of_two_runs_with_one_model_the_last_is_shown(kept):
    store, first = kept
    write_card(site_of(store, first))
    second = kept_run(store, verdicts=({"name": "KL", "level": "ok", "text": "small"},))
    write_card(site_of(store, second))
    assert second.id in card_in(store, second)
    assert "| KL | ok | small |" in card_in(store, second)


@pytest.mark.parametrize("store_uri", ["s3", "moto"], indirect=True)
def test_it_is_written_into_an_object_store(store, kept):
    """And the model is found with it, as it was before."""
    local, run = kept
    for path in local_files(Path(local.root)):
        store.fs.makedirs(store.path(f"{path.parent.relative_to(local.root)}"), exist_ok=True)
        store.fs.put_file(str(path), store.path(str(path.relative_to(local.root))))
    before = store.find(run.artifacts["aligned"])
    write_card(site_of(store, run))
    assert card_in(store, run) == card_text(gather(local, run))
    assert store.find(run.artifacts["aligned"]) == before is not None


@EVERY_STORE
def test_a_model_with_a_card_is_whole(store):
    """It is found, fetched, listed, and goes when it is pruned, as without a card."""
    model = commit_model(store, f"train_dpo/{'a' * 64}")
    folder = store.folder_of(model)
    beside = read_manifest(model.uri).files["config.json"].path.replace("config.json", "README.md")
    store.fs.pipe_file(store.path(f"{folder}/{beside}"), b"# A card")
    assert store.find(folder) == model
    assert {path.name for path in fetch(model).iterdir()} - {"README.md"} == set(MODEL)
    (entry,) = read_catalog(store).select("stage")
    assert (entry.damage, entry.digest) == ("", model.digest)
    RunRecord.begin(store).finish({"aligned": model})
    RunRecord.begin(store).finish({})
    assert [gone.folder for gone in prune(store, keep_last=1).entries] == [folder]
    assert store.fs.find(store.path("train_dpo")) == []


def test_a_dry_run_has_no_card(kept):
    store, run = kept
    write_card(Site(store))
    with pytest.raises(FileNotFoundError):
        card_in(store, run)


def test_a_card_that_cannot_be_written_ends_no_run(kept, damage, capsys):
    store, run = kept
    damage(f"{store.uri}/{run.artifacts['pairs']}/manifest.json", "flip")
    write_card(site_of(store, run))
    assert (
        "WARNING: no model card was written beside the aligned model (DamagedArtifactError" in capsys.readouterr().out
    )


def test_neither_does_an_artifact_of_another_form(kept, capsys):
    store, run = kept
    of_data = {**run.artifacts, "pairs": run.artifacts["prompts"]}
    write_card(site_of(store, run.model_copy(update={"artifacts": of_data})))
    assert "WARNING: no model card was written" in capsys.readouterr().out
