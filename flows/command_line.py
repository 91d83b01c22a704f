"""The command line of a flow: a configuration file with overrides, a dry run, and what may go wrong.

Imported before Prefect and the stages, which take seconds: what needs them is imported within functions.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from flows.arguments import run_parser
from flows.config_files import explain, load_config
from flows.run_log import RunLog, ended_by_signals, redacted
from tasks.config.errors import ConfigurationError
from tasks.pipeline.configuration import Config

if TYPE_CHECKING:
    from prefect import Flow

    from tasks.pipeline.dry_run import Plan
    from tasks.store.artifacts import Artifact

Prepare = Callable[[], object]


def main(
    flow: "Flow[..., dict[str, Artifact]]", arguments: list[str] | None = None, prepare: Prepare | None = None
) -> "dict[str, Artifact]":
    """Run a flow on a configuration file; exit with one message where it cannot run.

    The exit status is 2 where something is typed wrong, 1 where the store, a worker or anything else fails (run again),
    128 and its number after a signal. What else there is to say of a failure is in a file that the message names.
    `prepare` makes what the configuration reads, once the settings are known to be right.
    """
    options = run_parser().parse_args(arguments)
    with ends_with_a_message():
        return _run(flow, options, prepare)
    raise AssertionError("a command that goes wrong ends its process")


@contextlib.contextmanager
def ends_with_a_message() -> Iterator[None]:
    """End the process with one message and an exit status, as `main` says, where what a command does goes wrong."""
    sys.excepthook = print_error
    if sys.stdout is None:  # closed; the artifacts are in the store all the same
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with ended_by_signals():
        try:
            yield
        except ConfigurationError as error:
            stop(error)
        except KeyboardInterrupt as error:
            stop(error, status=128 + signal.SIGINT)
        except SystemExit as error:
            if int(error.code or 0) <= 128:  # of rich, where nobody reads the output any more
                raise
            stop(error, status=int(error.code or 0))  # by a signal
        except failures() as error:
            stop(error, status=1)


def failures() -> tuple[type[Exception], ...]:
    """Return what may pass when the store, a worker or the network is mended, or another range is set.

    To be asked where an error is caught, and not before: importing them takes seconds.
    """
    from flows.prefect_server import ServerError
    from tasks.monitors.judging import MonitorError
    from tasks.pipeline.dispatch import DeploymentFailedError, DeploymentRunError
    from tasks.store.artifacts import DamagedArtifactError
    from tasks.store.filesystem import store_errors

    return (
        DamagedArtifactError,
        DeploymentFailedError,
        DeploymentRunError,
        MonitorError,
        ServerError,
        *store_errors(),
    )


def read_settings(options: argparse.Namespace) -> Config:
    """Return the settings of a run as its arguments say.

    Raises:
        ConfigurationError: See `load_config`.
    """
    try:
        pilot = [] if options.pilot is None else [f"data.pilot={options.pilot}"]
        return load_config(options.config, [*options.set, *pilot])
    except ValidationError as error:  # of the configuration, and of nothing that is read or asked later
        raise ConfigurationError(explain(error)) from error


def _run(
    flow: "Flow[..., dict[str, Artifact]]", options: argparse.Namespace, prepare: Prepare | None
) -> "dict[str, Artifact]":
    from flows.prefect_server import check_places, start_server
    from flows.printing import print_plan, print_prediction, print_report

    parameters = read_settings(options).sections()
    if prepare is not None:
        prepare()
    if not options.dry_run:
        check_places()
    with RunLog(unless=(ConfigurationError,)):
        plan = foresee(flow, parameters)
    if options.dry_run:
        print_plan(plan, as_json=options.json)
        return {}
    with RunLog() as log:
        start_server(log.path)
        artifacts: dict[str, Artifact] = flow(**parameters)
    if "prediction" in artifacts:
        print_prediction(artifacts, parameters["data"], as_json=options.json)
    else:
        print_report(artifacts, as_json=options.json)
    return artifacts


def foresee(flow: "Flow[..., dict[str, Artifact]]", parameters: dict[str, Any]) -> "Plan":
    """Go through a flow without running it: read the data, check the models, look every stage up in the store."""
    from tasks.pipeline.dry_run import PLAN, Plan

    with tempfile.TemporaryDirectory(prefix="rs-dpo-plan-") as folder:
        plan = Plan(Path(folder))
        token = PLAN.set(plan)
        try:
            flow.fn(**parameters)
        finally:
            PLAN.reset(token)
    return plan


def print_error(kind: type[BaseException], error: BaseException, trace: Any = None) -> None:
    """Print one message for an error, foreseen or not, and the file that has the rest."""
    message, notes = explain(error), getattr(error, "__notes__", [])
    if isinstance(error, KeyboardInterrupt | SystemExit):
        message = "ended by a signal: run again, and it goes on from what the store has"
    elif not isinstance(error, (ConfigurationError, ValidationError)) and not isinstance(error, failures()):
        if not notes:  # no file has the traceback
            sys.__excepthook__(kind, error, trace)
            return
        message = ": ".join([kind.__name__, *message.splitlines()[:1]])
    print(redacted("\n       ".join([f"error: {message}", *notes])), file=sys.stderr)


def stop(error: BaseException, status: int = 2) -> NoReturn:
    """End the process with one message."""
    print_error(type(error), error)
    raise SystemExit(status) from error
