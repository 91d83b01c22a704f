"""A stage in a flow: computed once, repeated after failures, shown to people."""

import json
import shutil

import pyarrow as pa
import pytest
from doubles import SOURCE, Double, Settings
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter

from tasks.config.errors import ConfigurationError
from tasks.pipeline.progress import Progress
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft, stage_key
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes, read_files, read_manifest

# A stage in a flow


def test_a_stage_is_computed_once(store, double, states):
    made = []
    assert states(lambda: made.extend([double(store), double(store), double(store, batch_size=1)])) == [
        "Completed",
        "Cached",
        "Cached",
    ]
    assert states(lambda: made.append(double(store))) == ["Cached"]
    assert len(double.calls) == 1
    assert set(map(Artifact.model_dump_json, made)) == {made[0].model_dump_json()}
    assert read_bytes(made[0], "number.txt") == b"10"
    provenance = read_manifest(made[0].uri).provenance
    assert store.folder_of(made[0]) == f"double/{provenance.key}"
    assert (provenance.stage, provenance.version, provenance.inputs) == ("double", 1, {"source": SOURCE.digest})
    assert provenance.config == {"settings": Settings(batch_size=8).model_dump()}
    assert provenance.key == stage_key("double", 1, {"settings": Settings().key_fields()}, {"source": SOURCE.digest})


def test_a_stage_that_is_there_is_looked_up_once(store, double, states, monkeypatch):
    find, looked = Store.find, []
    assert states(lambda: double(store)) == ["Completed"]
    monkeypatch.setattr(Store, "find", lambda self, folder: looked.append(folder) or find(self, folder))
    assert states(lambda: double(store)) == ["Cached"]
    assert len(looked) == 1


def test_an_attempt_after_a_failure_finds_what_another_run_has_computed_meanwhile(store, states):
    other, failing = Double(), Double(retries=2)

    class Meanwhile(RuntimeError):
        """Raised after another run has committed the output."""

        def __init__(self) -> None:
            other.stage.body(failing.stage.draft(Site(store), SOURCE, Settings()), SOURCE, Settings())

    class Late(list):
        def pop(self, place: int) -> Exception:
            super().pop(place)
            return Meanwhile()

    failing.errors = Late([RuntimeError()])
    made = []
    assert states(lambda: made.append(failing(store))) == ["Cached"]
    assert made[0].uri.startswith(store.uri)
    assert (len(failing.calls), len(other.calls)) == (1, 1)


def test_what_decides_the_output_computes_it_anew(store, double, states):
    other_input = SOURCE.model_copy(update={"digest": "6" * 64})
    newer = Double(version=2)
    made = []

    def calls() -> None:
        made.extend([double(store), double(store, factor=3), double(store, other_input), newer(store)])

    assert states(calls) == ["Completed"] * 4
    assert (len(double.calls), len(newer.calls)) == (3, 1)
    assert len({artifact.uri for artifact in made}) == 4
    moved = SOURCE.model_copy(update={"uri": "s3://elsewhere/x", "stats": {"seconds": 3}})
    assert states(lambda: made.append(double(store, moved))) == ["Cached"]
    assert made[-1] == made[0]


@pytest.mark.parametrize("how", ["no manifest", "flip", "truncate", "delete"])
def test_a_damaged_folder_is_computed_again(store, double, states, damage, how):
    def calls() -> None:
        first = double(store)
        if how == "no manifest":
            damage(f"{first.uri}/manifest.json", "delete")
        else:
            damage(f"{first.uri}/{read_files(first)['number.txt'].path}", how)
        assert double(store) == first
        assert read_bytes(first, "number.txt") == b"10"
        double(store)

    assert states(calls) == ["Completed", "Completed", "Cached"]
    assert len(double.calls) == 2


def test_a_store_that_was_copied_stands_on_its_own(tmp_path, double, states):
    def calls() -> None:
        first = double(Store(str(tmp_path / "old")))
        shutil.move(tmp_path / "old", tmp_path / "new")
        second = double(Store(str(tmp_path / "new")))
        assert second == first.model_copy(update={"uri": first.uri.replace("/old/", "/new/")})
        assert read_bytes(second, "number.txt") == b"10"

    states(calls)
    assert len(double.calls) == 1
    assert not (tmp_path / "old").exists()


def test_two_stores_do_not_share_results(tmp_path, double, states):
    stores = [Store(str(tmp_path / name)) for name in ("one", "two")]
    made = []
    assert states(lambda: made.extend(double(store) for store in stores)) == ["Completed", "Completed"]
    assert [artifact.uri.startswith(store.uri) for artifact, store in zip(made, stores, strict=True)] == [True, True]


def test_what_another_run_committed_is_taken(store, double, states):
    another, made = Double(), []
    states(lambda: made.append(another(store)))
    states(lambda: made.append(double(store)))
    assert double.calls == []
    assert made[0] == made[1]


# Failures


def test_failures_that_may_pass_are_repeated(tmp_path, double, states):
    double.errors = [OSError("network"), RuntimeError("CUDA out of memory")]
    assert states(lambda: double(Store(str(tmp_path)))) == ["Completed"]
    assert len(double.calls) == 3


def test_failures_are_repeated_so_often_and_no_more(tmp_path, double, states):
    double.errors = [OSError(f"network {i}") for i in range(9)]
    with pytest.raises(OSError, match="network 2"):
        states(lambda: double(Store(str(tmp_path))))
    assert len(double.calls) == 3


def test_what_a_person_gave_wrong_is_not_repeated(tmp_path, double, states):
    double.errors = [ConfigurationError("tau = -1")] * 9
    with pytest.raises(ConfigurationError, match="tau = -1"):
        states(lambda: double(Store(str(tmp_path))))
    assert len(double.calls) == 1


def test_a_value_error_of_a_library_is_repeated(tmp_path, double, states):
    double.errors = [pa.ArrowInvalid("a page cut short"), json.JSONDecodeError("half a file", "{", 1)]
    states(lambda: double(Store(str(tmp_path))))
    assert len(double.calls) == 3


def test_a_failed_stage_runs_again_next_time(tmp_path, double, states):
    double.errors, made = [ConfigurationError("tau = -1")], []
    with pytest.raises(ConfigurationError, match="tau"):
        states(lambda: double(Store(str(tmp_path))))
    assert states(lambda: made.append(double(Store(str(tmp_path))))) == ["Completed"]
    assert read_bytes(made[0], "number.txt") == b"10"


def test_without_retries_a_stage_runs_once(tmp_path, states):
    once = Double()
    once.errors = [OSError("network")]
    with pytest.raises(OSError, match="network"):
        states(lambda: once(Store(str(tmp_path))))
    assert len(once.calls) == 1


# Keys


def test_an_input_that_a_stage_once_had_stays_in_its_key(store):
    then, now = Double(), Double(dropped=["annotated"])
    key = now.stage.draft(Site(store), SOURCE, Settings()).provenance.key
    assert key != then.stage.draft(Site(store), SOURCE, Settings()).provenance.key
    assert key == stage_key("double", 1, {"settings": {}}, {"source": SOURCE.digest, "annotated": ""})


def test_an_input_that_is_what_it_is_by_default_is_not_in_the_key(store):
    @stage(version=1, same={"reference": "policy"})
    def train(out: Draft, policy: Artifact, reference: Artifact) -> Artifact:
        """Train."""
        return out.commit("model", {}, "1" * 64)

    moved, other = (SOURCE.model_copy(update=change) for change in ({"uri": "s3://b/x"}, {"digest": "6" * 64}))
    keys = [train.draft(Site(store), SOURCE, reference).provenance.key for reference in (SOURCE, moved, other)]
    assert keys[0] == keys[1] == stage_key("train", 1, {}, {"policy": SOURCE.digest})
    assert keys[2] == stage_key("train", 1, {}, {"policy": SOURCE.digest, "reference": other.digest})


def test_artifacts_in_a_mapping_count_by_their_digests_and_leave_no_address_in_the_manifest(store):
    @stage(version=1)
    def compare(out: Draft, policies: dict[str, Artifact]) -> Artifact:
        """Compare."""
        return out.commit("number", {}, "1" * 64)

    moved = SOURCE.model_copy(update={"uri": "s3://elsewhere/x"})
    here, there = (compare.draft(Site(store), {"sft": each}).provenance for each in (SOURCE, moved))
    assert here == there
    assert here.inputs == {"policies.sft": SOURCE.digest}
    assert here.config == {}


# What people see


def test_a_stage_leaves_its_page_and_its_progress(tmp_path, prefect_harness):
    @stage(version=1)
    def count_words(out: Draft, settings: Settings) -> Artifact:
        """Count words."""
        seconds = iter([0.0, 6.0, 8.0, 8.0])
        progress = Progress("counting", 4, clock=lambda: next(seconds))
        progress.move_to(2)
        progress.move_to(4)
        progress.close()
        return out.commit("number", {"n.txt": b"4"}, "4" * 64, rows=4, stats={"words": 4})

    flow(lambda: count_words(Site(Store(str(tmp_path))), Settings()), name="pages")()
    with get_client(sync_client=True) as client:
        pages, bars = (
            client.read_artifacts(artifact_filter=ArtifactFilter.model_validate({name: {"any_": [value]}}))
            for name, value in (("key", "count-words"), ("type", "progress"))
        )
    assert [page.data.splitlines()[0] for page in pages] == ["# count_words"]
    assert "| words | 4 |" in pages[0].data
    ours = [bar for bar in bars if bar.description and bar.description.startswith("counting: ")]
    assert [(bar.data, bar.description) for bar in ours] == [(100.0, "counting: 4 / 4 (100%) in 8 s, 30/min")]
