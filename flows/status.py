"""How far a run is: a line a stage, from the store and from Prefect's server.

python -m flows.status STORE
python -m flows.status STORE --run 20261127T0655
"""

if __name__ == "__main__":  # a wrong flag is told before the imports below, which take seconds
    from flows.arguments import status_parser

    status_parser().parse_args()


import json
import shutil
import sys
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.arguments import status_parser
from flows.command_line import stop
from flows.run_log import redacted
from tasks.config.errors import ConfigurationError
from tasks.inspection.browse import find_run
from tasks.inspection.catalog import check_there
from tasks.inspection.printable import printable
from tasks.inspection.reported import Reported, ask_server
from tasks.inspection.status import StageStatus, run_state, stages_of
from tasks.monitors.judging import FAIL
from tasks.pipeline.pace import duration_text
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.filesystem import store_errors
from tasks.store.folders import Store
from tasks.store.runs import Run, list_runs

LEAST_WIDTH = 80
COLUMNS = ("stage", "state", "began (UTC)", "seconds", "rows", "progress")


def main(arguments: list[str] | None = None) -> None:
    """Print how far a run is; exit with 2 and one message where something is wrong."""
    options = status_parser().parse_args(arguments)
    try:
        store = Store(options.store)
        check_there(store)
        run = choose_run(store, options.run)
        reported = ask_server(run)
        reported = reported._replace(remark=redacted(reported.remark))
        state = run_state(run, reported.ended)
        stages = [_with_progress(stage, reported) for stage in stages_of(store, run, state)]
    except store_errors(ConfigurationError, ValidationError, DamagedArtifactError) as error:
        stop(error)
    if options.json:
        print(json.dumps(_facts(run, state, stages, reported)))
    else:
        lines = [_text(_head(run, state)), _table(stages), *map(_text, filter(None, [reported.remark]))]
        Console(width=_width(), highlight=False).print(*lines, sep="\n")


def _width() -> int:
    """Return how wide the table is; a narrow terminal breaks its lines, rather than the table every word."""
    return max(LEAST_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 160


def choose_run(store: Store, prefix: str | None) -> Run:
    """Return the run whose id begins so; the newest where nothing is asked for.

    Raises:
        ConfigurationError: There is none, or several.
        DamagedArtifactError: Its record cannot be read.
    """
    runs, damaged = list_runs(store)
    names = [folder.partition("/")[2] for folder in damaged]
    newest = max([run.id for run in runs], default="")
    lost = [name for name in names if (name.startswith(prefix) if prefix else name > newest)]
    if lost and not (prefix and any(run.id.startswith(prefix) for run in runs)):
        raise DamagedArtifactError(f"{store.uri}/runs/{lost[-1]} is damaged: choose another run with --run")
    return find_run(runs, prefix)


def _text(text: str) -> Text:
    """Return a text without control characters: a store may be written by others."""
    return Text(printable(text))


def _with_progress(stage: StageStatus, reported: Reported) -> StageStatus:
    return stage._replace(progress=reported.progress) if stage.state == "running" and reported.progress else stage


def _head(run: Run, state: str) -> str:
    ago = duration_text((datetime.now(UTC) - run.started).total_seconds())
    monitors = [f"monitors.{verdict.get('name')}" for verdict in run.verdicts if verdict.get("level") == FAIL]
    cause = f"stopped by {', '.join(monitors)}" if monitors else "its process is gone"
    gone = f": {cause}" if state == "interrupted" else ""
    where = f"process {run.pid} on {run.host}{f', flow run {run.flow_run_id}' if run.flow_run_id else ''}"
    return f"run {run.id}: {state}{gone}\nstarted {run.started:%Y-%m-%d %H:%M:%S} UTC, {ago} ago, {where}\n"


def _table(stages: list[StageStatus]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("seconds", "rows") else "left", overflow="fold")
    for stage in stages:
        began = "-" if stage.began is None else f"{stage.began:%m-%d %H:%M:%S}"
        seconds = "-" if stage.seconds is None else f"{stage.seconds:.0f}"
        rows = "-" if stage.rows is None else f"{stage.rows:,}"
        table.add_row(*map(_text, (stage.stage, stage.state, began, seconds, rows, stage.progress)))
    return table


def _facts(run: Run, state: str, stages: list[StageStatus], reported: Reported) -> dict[str, Any]:
    times = [None if stage.began is None else stage.began.isoformat() for stage in stages]
    listed = [{**stage._asdict(), "began": time} for stage, time in zip(stages, times, strict=True)]
    facts = run.model_dump(mode="json", include={"host", "pid", "started", "updated", "flow_run_id"})
    return {"run": run.id, "state": state, **facts, "stages": listed, "remark": reported.remark}


if __name__ == "__main__":
    main()
