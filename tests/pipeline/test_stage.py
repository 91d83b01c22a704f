import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter
from runs import ROOT

from tasks.config.errors import ConfigurationError
from tasks.config.sections import NOT_IN_KEY, ModelSource, Section
from tasks.config.settings import SamplingConfig
from tasks.pipeline.dry_run import PLAN, Plan, pending
from tasks.pipeline.progress import Progress
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact, sha256_of
from tasks.store.drafts import Draft, canonical_json, stage_key
from tasks.store.folders import Store, read_bytes, read_files, read_manifest

SOURCE = Artifact(kind="number", uri="file:///anywhere", digest="5" * 64, rows=5)
KEY = {"stage": "build_pairs", "version": 2, "config": {"tau": 1.0, "eta": 0.85}, "inputs": {"rewards": "ab", "q": "é"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


class Inner(Section):
    """A part of the settings."""

    depth: int = 1
    threads: Annotated[int, NOT_IN_KEY] = 1


class Settings(Section):
    """Settings of the stage under test."""

    factor: int = 2
    batch_size: Annotated[int, NOT_IN_KEY] = 8
    inner: Inner = Inner()
    other: Inner | None = None


# Keys


def test_a_key_is_the_hash_of_canonical_json():
    text = '{"config":{"eta":0.85,"tau":1.0},"inputs":{"q":"é","rewards":"ab"},"stage":"build_pairs","version":2}'
    assert stage_key(**KEY) == hashlib.sha256(text.encode()).hexdigest()


def test_numbers_that_json_cannot_write_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"tau": float("nan")})


@given(config=st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_the_order_of_settings_does_not_count(config):
    reordered = dict(reversed(config.items()))
    assert stage_key("s", 1, reordered, reordered) == stage_key("s", 1, config, config)
    assert json.loads(canonical_json(config)) == config


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "train_dpo"},
        {"version": 3},
        {"config": {"tau": 1.0, "eta": 0.86}},
        {"config": {"tau": 1.0}},
        {"config": {"tau": 0.85, "eta": 1.0}},
        {"config": {**KEY["config"], "more": None}},
        {"inputs": {**KEY["inputs"], "rewards": "ac"}},
        {"inputs": {"rewards": "é", "q": "ab"}},
        {"inputs": {"q": "é"}},
        {"config": {}, "inputs": {**KEY["inputs"], **KEY["config"]}},
    ],
)
def test_every_part_of_a_key_counts(change):
    assert stage_key(**KEY) != stage_key(**{**KEY, **change})


def test_a_key_is_equal_in_another_interpreter():
    script = f"from tasks.store.drafts import stage_key; print(stage_key(**{KEY!a}))"
    environment = {**os.environ, "PYTHONHASHSEED": "1234", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == stage_key(**KEY)


def test_fields_that_decide_nothing_are_not_in_the_key():
    assert Settings().key_fields() == Settings(factor=2, inner=Inner(threads=9)).key_fields() == {}
    quick = Settings(batch_size=64, inner=Inner(threads=9), other=Inner(depth=3, threads=9))
    assert quick.key_fields() == {"other": {"depth": 3}}
    assert Settings(factor=3).key_fields() != Settings().key_fields()


def test_where_a_model_is_does_not_count():
    here, there = ModelSource(path="/here"), ModelSource(path="s3://there/model", revision="main")
    assert here.key_fields() == there.key_fields() == {}


def test_the_seed_counts_and_the_engine_s_own_options_do_not():
    key = SamplingConfig().key_fields()
    assert SamplingConfig(seed=SamplingConfig().seed + 1).key_fields() != key
    assert SamplingConfig(k=SamplingConfig().k + 1).key_fields() != key
    assert (
        not {name for name, field in SamplingConfig.model_fields.items() if NOT_IN_KEY in field.metadata} & key.keys()
    )


# A stage in a flow


class Double:
    """A stage that multiplies its source's rows, and remembers every call of its body."""

    def __init__(self, version: int = 1, **options: Any) -> None:
        self.calls: list[Settings] = []
        self.errors: list[Exception] = []

        @stage(version=version, **options)
        def double(out: Draft, source: Artifact, settings: Settings) -> Artifact:
            """Double a number."""
            self.calls.append(settings)
            if self.errors:
                raise self.errors.pop(0)
            content = str(source.rows * settings.factor).encode()
            return out.commit("number", {"number.txt": content}, sha256_of(content), rows=source.rows)

        self.stage = double

    def __call__(self, store: Store, source: Artifact = SOURCE, **settings: Any) -> Artifact:
        return self.stage(Site(store), source, Settings(**settings))


@pytest.fixture
def double(monkeypatch) -> Double:
    monkeypatch.setattr("tasks.pipeline.stage.exponential_backoff", lambda _: lambda retries: [0.0] * retries)
    return Double(retries=2)


@pytest.fixture
def states(prefect_harness, caplog) -> Callable[[Callable[[], Any]], list[str]]:
    """Return a function that runs another in a flow, and returns the states in which Prefect says its tasks ended."""

    def run(body: Callable[[], Any]) -> list[str]:
        @flow(name="test")
        def test() -> None:
            body()

        caplog.clear()
        test()
        messages = [record.getMessage() for record in caplog.records if record.name == "prefect.task_runs"]
        return [found[1] for message in messages if (found := re.match(r"Finished in state (\w+)", message))]

    return run


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


# Options


def test_an_option_that_asks_for_what_the_body_does_not_have_is_refused():
    with pytest.raises(TypeError, match=r"double: preview asks for \['demonstrations'\], which the body does not have"):
        Double(preview=lambda source, demonstrations: (NOTHING, {}))


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
        progress = Progress("counting", 4)
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
    assert [bar.data for bar in bars if bar.description == "counting"] == [100.0]


# Outside of the task


def test_a_ready_output_takes_the_stage_s_place(tmp_path):
    given_model = Artifact(kind="model", uri="file:///ready", digest="9" * 64)
    ready = Double(given=lambda source, settings: given_model if settings.factor == 1 else None)
    assert ready(Store(str(tmp_path)), factor=1) is given_model
    assert ready.calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_not_ready_is_computed(tmp_path, states):
    ready = Double(given=lambda source, settings: NOTHING if settings.factor == 1 else None)
    assert states(lambda: ready(Store(str(tmp_path)), factor=2)) == ["Completed"]
    assert len(ready.calls) == 1


@pytest.fixture
def plan(tmp_path) -> Iterator[Plan]:
    token = PLAN.set(Plan(tmp_path))
    yield PLAN.get()
    PLAN.reset(token)


def test_a_dry_run_writes_nothing_to_the_store(store, plan):
    data = Double()
    artifact = data(store)
    assert read_bytes(artifact, "number.txt") == b"10", "a stage that reads data has run, into memory"
    assert not artifact.uri.startswith(store.uri)
    assert store.fs.find(store.root) == []
    (step,) = plan.steps
    assert (step["stage"], step["action"], len(step["key"])) == ("double", "compute", 64)


def test_a_dry_run_estimates_costly_stages(tmp_path, plan):
    def preview(source: Artifact, out: Draft) -> tuple[Artifact, dict[str, Any]]:
        return pending(2 * source.rows, out.provenance.stage), {"completions": 2 * source.rows}

    costly, store = Double(preview=preview), Store(str(tmp_path))
    first = costly(store)
    second = costly(store, first)
    assert (first.kind, first.rows, second.rows) == ("pending", 10, 20)
    assert costly.calls == []
    assert list(tmp_path.iterdir()) == []
    assert [step["completions"] for step in plan.steps] == [10, 20]
    assert plan.steps[1]["key"] == "known after double"
    assert plan.steps[1]["action"] == "compute"


def test_a_dry_run_names_what_is_there(store, double, states, tmp_path):
    made = []
    states(lambda: made.append(double(store)))
    before = store.fs.find(store.root)
    token = PLAN.set(Plan(tmp_path))
    try:
        assert double(store) == made[0]
        double(store, factor=3)
        assert [step["action"] for step in PLAN.get().steps] == ["reuse", "compute"]
        assert PLAN.get().steps[0]["key"] == read_manifest(made[0].uri).provenance.key
    finally:
        PLAN.reset(token)
    assert store.fs.find(store.root) == before
