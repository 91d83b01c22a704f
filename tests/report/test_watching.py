"""What watches a run: the record, the report and the page of the run, as stages come."""

from pathlib import Path

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter

from tasks.monitors.judging import MonitorError
from tasks.pipeline.configuration import Config
from tasks.pipeline.site import Site
from tasks.report.watching import watched
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.runs import RunRecord, list_runs

GOOD = {"prompts": 10, "prompts_without_pair": 1, "completions": 40, "truncated_completions": 0, "possible_pairs": 60}
PAIRS = Artifact(kind="pairs", uri="file:///elsewhere", digest="1" * 64, rows=30, stats=GOOD)
FEW = PAIRS.model_copy(update={"stats": GOOD | {"prompts_without_pair": 9}})


def site(folder: Path, **monitors) -> Site:
    config = {"data": {"prompts": "x"}, "sft": {"ready_model": "y"}, "monitors": monitors}
    store = Store(str(folder))
    return watched(Site(store, record=RunRecord.begin(store)), Config.model_validate(config))


def pages() -> list[str]:
    chosen = ArtifactFilter.model_validate({"key": {"any_": ["report"]}})
    with get_client(sync_client=True) as client:
        return [page.data for page in client.read_artifacts(artifact_filter=chosen)]


def test_the_page_of_the_run_is_one_and_grows(tmp_path, prefect_harness):
    def whole() -> Artifact:
        watching = site(tmp_path)
        watching.made.add(PAIRS.uri)
        watching.watcher.saw("build_pairs", PAIRS)
        (early,) = pages()
        assert early.startswith("# Report\n\nThe whole report: `file://")
        aligned = Draft(watching.store, Provenance(stage="train_dpo", version=1, key="0" * 64))
        watching.watcher.saw("train_dpo", aligned.commit("model", {}, "1" * 64, stats={"chosen_log_ratio": -50.0}))
        return watching.watcher.ended()["report"]

    record = flow(whole, name="watched")()
    (page,) = pages()
    assert page.startswith("# Report\n\nThe whole report: `file://")
    assert "- warn: log pi(chosen) / pi_ref(chosen)" in page
    assert Path(record.stats["report"].removeprefix("file://")).read_text().startswith("<!doctype html>")
    assert {verdict["level"] for verdict in record.stats["verdicts"]} == {"ok", "warn", "not measured"}


def test_a_failing_monitor_leaves_its_verdict_and_the_report(tmp_path):
    watching = site(tmp_path, prompts_with_pair={"level": "fail"})
    with pytest.raises(MonitorError, match=r"monitors\.prompts_with_pair stops the run after build_pairs: share"):
        watching.watcher.saw("build_pairs", FEW)
    (run,), _ = list_runs(Store(str(tmp_path)))
    assert [verdict["name"] for verdict in run.verdicts if verdict["level"] == "fail"] == ["prompts_with_pair"]
    page = (tmp_path / "runs" / run.id / "report.html").read_text()
    assert "1 of 1 figures are outside" in page
    assert "What was trained on?" in page


def test_of_a_stage_that_comes_twice_the_first_counts(tmp_path):
    watching = site(tmp_path)
    watching.watcher.saw("build_pairs", PAIRS)
    watching.watcher.saw("build_pairs", FEW)
    assert not [each for each in watching.watcher.facts.verdicts if each.level == "warn"]


def test_a_part_of_another_run_is_not_watched(tmp_path):
    store = Store(str(tmp_path))
    config = Config.model_validate({"data": {"prompts": "x"}, "sft": {"ready_model": "y"}})
    assert watched(Site(store), config).watcher is None


def test_a_report_that_cannot_be_made_is_a_warning(tmp_path, capsys):
    watching = site(tmp_path)
    watching.watcher.saw("train_dpo", PAIRS)  # a folder that is not there
    record = watching.watcher.ended()["report"]
    assert "report" not in record.stats
    assert "WARNING: no report was written (DamagedArtifactError: file:///elsewhere has no" in capsys.readouterr().out
