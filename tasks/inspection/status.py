"""How far a run is, as its record and the store tell: its stages, done, under way, and still to come."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tasks.store.artifacts import DamagedArtifactError, Manifest
from tasks.store.filesystem import in_parallel
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.runs import Run

READERS = 32
GROWS = {
    "sample_completions": ("completions",),
    "score_completions": ("rewards",),
    "train_dpo": ("ref_logps",),
    "evaluate_policy": ("completions", "rewards"),
}
"""Stage -> the tables that it fills part by part."""
A_SECOND = timedelta(seconds=1)
"""Manifests tell the time in whole seconds, cut off."""


class StageStatus(NamedTuple):
    """A stage of a run."""

    stage: str
    state: str
    """`done` or `reused` by this run; `running`; `waiting`; in a run that has ended before: `failed`, `interrupted`,
    `not begun`; or what is wrong with a folder that has been there: `damaged`, `missing`."""
    folder: str = ""
    began: datetime | None = None
    seconds: float | None = None
    """How long it took, or has been running."""
    rows: int | None = None
    """Of what it wrote."""
    progress: str = ""


def run_state(run: Run, ended: str = "") -> str:
    """Return whether a run is running, finished, or ended otherwise.

    Args:
        run: What its record says.
        ended: How it ended, as Prefect's server knows; empty where that says nothing.
    """
    if run.status == "finished":
        return "finished"
    if ended and ended != "completed":
        return ended
    return "running" if run.in_use() else "interrupted"


def stages_of(store: Store, run: Run, state: str) -> list[StageStatus]:
    """Return the stages of a run in order: those that it has looked at, and those that are expected.

    Args:
        store: Where the run writes.
        run: What its record says.
        state: What `run_state` says.
    """
    times = [*run.noted, *[None] * (len(run.stages) - len(run.noted))]
    found = list(in_parallel(lambda folder: _manifest(store, folder), run.stages, READERS))
    seen = [_seen(run, *each) for each in zip(run.stages, found, times, strict=True)]
    if seen and seen[-1].state in ("missing", "damaged") and state != "finished":
        seen[-1] = _under_way(store, seen[-1], state)
    ahead = "waiting" if state == "running" else "not begun"
    return [*seen, *(StageStatus(name, ahead) for name in _ahead(run) if state != "finished")]


def _manifest(store: Store, folder: str) -> Manifest | str:
    """Return the manifest of a folder, or what is wrong with it."""
    try:
        return read_manifest(f"{store.uri}/{folder}")
    except DamagedArtifactError:
        return "damaged" if store.has_manifest(folder) else "missing"


def _seen(run: Run, folder: str, found: Manifest | str, began: datetime | None) -> StageStatus:
    """Return how a stage stands that the run has looked at."""
    name = folder.partition("/")[0]
    if isinstance(found, str):
        return StageStatus(name, found, folder, began)
    made = datetime.fromisoformat(found.created)
    if made + A_SECOND <= (began or run.started):
        return StageStatus(name, "reused", folder, began, rows=found.rows)
    seconds = None if began is None else max(0.0, (made - began).total_seconds())
    return StageStatus(name, "done", folder, began, seconds, found.rows)


def _under_way(store: Store, stage: StageStatus, state: str) -> StageStatus:
    """Return the stage that a run is in, or ended in, with what of it is stored."""
    seconds = (datetime.now(UTC) - stage.began).total_seconds() if stage.began and state == "running" else None
    stored = ", ".join(_stored(store, stage))
    return stage._replace(state=state, seconds=seconds, progress=f"stored so far: {stored}" if stored else "")


def _stored(store: Store, stage: StageStatus) -> Iterator[str]:
    """Yield what a stage without an output has stored: rows of tables since it began, and its last checkpoint."""
    since = (stage.began or datetime.max.replace(tzinfo=UTC)) - A_SECOND
    rows: Counter[str] = Counter()
    for kind in GROWS.get(stage.stage, ()) if stage.began else ():
        tables = [f"tables/{kind}/{table}" for table in store.list(f"tables/{kind}")]
        parts = [f"{table}/{part}" for table in tables for part in store.list(table)]
        for part in in_parallel(lambda folder: _manifest(store, folder), parts, READERS):
            if isinstance(part, Manifest) and datetime.fromisoformat(part.created) > since:
                rows[kind] += part.rows
    yield from (f"{count:,} {kind}" for kind, count in rows.items())
    checkpoints = f"checkpoints/{stage.folder}"
    steps = [int(name.removeprefix("step-")) for name in store.list(checkpoints) if name.startswith("step-")]
    whole = [step for step in sorted(steps) if isinstance(_manifest(store, f"{checkpoints}/step-{step}"), Manifest)]
    yield from (f"checkpoint of step {step}" for step in whole[-1:])


def _ahead(run: Run) -> list[str]:
    """Return the expected stages after the last one that the run has looked at."""
    ahead = list(run.expected)
    for name in (folder.partition("/")[0] for folder in run.stages):
        if name in ahead:
            ahead = ahead[ahead.index(name) + 1 :]
    return ahead
