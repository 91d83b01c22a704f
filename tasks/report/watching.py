"""What sees each stage's output as the run goes on: monitors speak, and the report grows."""

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
from jinja2 import TemplateError
from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.events import emit_event

from tasks.monitors.judging import FAIL, WARN, MonitorError, Verdict, judge
from tasks.pipeline.configuration import Config
from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.progress import warn
from tasks.pipeline.site import Site
from tasks.planning.costs import stage_of
from tasks.planning.prediction import keep, look_back, predict
from tasks.report.along import ALIGNED, falls_along
from tasks.report.facts import Facts
from tasks.report.page import report_page
from tasks.report.summary import report_summary
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.filesystem import store_errors
from tasks.store.runs import RUNS, RunRecord

REPORTED = ("train_reward_model", "build_pairs", "train_dpo", "train_rloo")
"""Stages after which the report is written anew where they were computed; at the end it is written in any case."""
REWARD_MODEL, SCORING, EVALUATION = "train_reward_model", "score_completions", "evaluate_policy"
FILE = "report.html"
NO_REPORT = (DamagedArtifactError, TemplateError, LookupError, TypeError, ValueError)
"""What may keep a report from being written, as errors of the store may: no reason to fail a run whose stages are all
kept."""


def watched(site: Site, config: Config) -> Site:
    """Return a site whose run is watched by the monitors and told in a report; a dry run is not."""
    if PLAN.get() is None and site.record is not None:
        site.watcher = Watch(site, site.record, config)
    return site


class Watch:
    """Watches one run."""

    def __init__(self, site: Site, record: RunRecord, config: Config) -> None:
        """Watch from here on; nothing has been seen."""
        self.record = record
        self.facts = Facts(site.store, config, record.run, made=site.made)
        self.page: UUID | None = None

    def saw(self, stage: str, artifact: Artifact) -> None:
        """Judge a stage's output, and write the report anew.

        Raises:
            MonitorError: A monitor of level `fail` is outside of its range.
        """
        if stage == EVALUATION and ALIGNED not in artifact.stats.get("policies", ()):
            self.facts.curve = artifact  # of the models along the training, or `NOTHING`
            if artifact:
                self.facts.artifacts[f"{EVALUATION} along"] = artifact
            return
        is_second = stage in self.facts.artifacts
        if stage == REWARD_MODEL:
            name = [*self.facts.config.reward_models][len(self.facts.reward_models)]
            self.facts.reward_models[name] = artifact
        if is_second and (further := self._further(stage)) is not None:
            self.facts.artifacts[further] = artifact
        if (is_second and stage != REWARD_MODEL) or artifact == self.facts.artifacts.get(stage):
            return
        self.facts.artifacts.setdefault(stage, artifact)
        stats = {**artifact.stats, "falls": falls_along(self.facts)} if stage == EVALUATION else artifact.stats
        verdicts = [] if self._is_begun_only(stage) else judge(stage, stats, self.facts.config.monitors)
        if is_second:
            verdicts = [verdict._replace(about=name) for verdict in verdicts]
        self.facts.verdicts += verdicts
        for verdict in verdicts:
            if verdict.level in (WARN, FAIL):
                _tell(self.record.run.id, verdict)
        failed = [verdict for verdict in verdicts if verdict.level == FAIL]
        if failed or (stage in REPORTED and artifact.uri in self.facts.made):
            self._write()
        if failed:
            raise MonitorError(
                f"monitors.{failed[0].name} stops the run after {stage}: {failed[0].text}. What was computed is kept; "
                f"to go on all the same, set monitors.{failed[0].name}.level to warn"
            )

    def _further(self, stage: str) -> str | None:
        """Return what the output of a stage for a further reward is called; None for what a run looks at again."""
        config = self.facts.config
        names = {REWARD_MODEL: [*config.reward_models], SCORING: config.selecting}.get(stage, [])
        number = sum(stage_of(each) == stage for each in self.facts.artifacts)
        return f"{stage} {names[number]}" if number < len(names) else None

    def ended(self) -> dict[str, Artifact]:
        """Write the whole report; return the run's record, and of a pilot its prediction."""
        facts, told = self.facts, dict[str, Artifact]()
        if facts.config.data.pilot is not None:
            run = facts.store, facts.config, facts.artifacts
            told["prediction"] = keep(*run, name=self.record.run.id, found=predict(*run))
            self.record.add("prediction", told["prediction"])
        with _informing("nothing can be said of what was predicted"):
            facts.planned = look_back(facts.store, facts.config, facts.artifacts, facts.made)
        return {"report": self._write(), **told}

    def _is_begun_only(self, stage: str) -> bool:
        """Tell whether a stage's output is of a pilot's few steps of DPO, of which nothing can be judged."""
        return self.facts.config.data.pilot is not None and stage in ("train_dpo", EVALUATION)

    def _write(self) -> Artifact:
        """Write the report, and what it says in short into Prefect's UI; return the run's record."""
        record = self.record.judge([verdict._asdict() for verdict in self.facts.verdicts])
        folder = f"{RUNS}/{self.record.run.id}"
        told = _planned(self.facts)
        with _informing("no report was written"):
            told["report"] = self.facts.store.write_beside(folder, FILE, report_page(self.facts))
            self._show(report_summary(self.facts, told["report"]))
        return record.model_copy(update={"stats": {**record.stats, **told}})

    def _show(self, text: str) -> None:
        """Show the summary on the run's page; the server may be gone."""
        if FlowRunContext.get() is None:
            return
        with contextlib.suppress(httpx.HTTPError):
            if self.page is None:
                made: Any = create_markdown_artifact(text, key="report", description="What this run has found")
                self.page = made
                return
            with get_client(sync_client=True) as client:
                client.update_artifact(self.page, ArtifactUpdate(data=text))


@contextlib.contextmanager
def _informing(otherwise: str) -> Iterator[None]:
    """Warn where what only informs fails."""
    try:
        yield
    except store_errors(*NO_REPORT) as error:
        warn(f"{otherwise} ({type(error).__name__}: {error})")


def _planned(facts: Facts) -> dict[str, Any]:
    """Return what was predicted and what came, for programs; nothing where there was no pilot."""
    if facts.planned is None or not facts.planned.came:
        return {}
    came = facts.planned.came
    found = {name: value._asdict() | {"came": came.get(name)} for name, value in facts.planned.expected.items()}
    return {"predicted": found}


def _tell(run: str, verdict: Verdict) -> None:
    """Log a doubt, and send it as an event, on which an automation can act."""
    warn(f"monitor {verdict.name.replace('_', ' ')}: {verdict.text}")
    resource = {"prefect.resource.id": f"rs-dpo.run.{run}", "prefect.resource.name": verdict.name}
    with contextlib.suppress(httpx.HTTPError):
        emit_event(f"monitor.{verdict.level}", resource=resource, payload=verdict._asdict())
