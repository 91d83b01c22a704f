"""The runs of a comparison: one after the other, or several side by side, whose GPU stages go to a pool of workers."""

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor

from prefect import Flow

from flows.rloo import rloo
from flows.rs_dpo import rs_dpo
from flows.run_log import RunLog
from tasks.comparison.waves import waves
from tasks.config.errors import ConfigurationError
from tasks.pipeline.configuration import Config, RlooRun
from tasks.pipeline.jobs import die_with_parent
from tasks.store.artifacts import Artifact

Key = tuple[str, int]
"""Name of an arm, and a seed."""
Made = dict[str, Artifact]


def ended_runs(runs: Mapping[Key, Config], at_once: int) -> Iterator[tuple[Key, Made | ConfigurationError]]:
    """Yield the artifacts of each run as it has ended, or why it has none, such as no pair.

    Runs that go at once have a process each, which dies with this one. What they share is computed before by one of
    them (`tasks/comparison/waves.py`). Where a run fails, the others are ended; what their workers compute goes on.

    Args:
        runs: Their configurations.
        at_once: How many go side by side.
    """
    if at_once == 1:
        yield from ((key, run_arm(config)) for key, config in runs.items())
        return
    processes = ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), die_with_parent)
    try:
        for wave in waves(runs):
            started = {key: processes.submit(_run_alone, runs[key]) for key in wave}
            yield from ((key, future.result()) for key, future in started.items())
    finally:
        processes.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():  # a run under way would be waited for
            child.terminate()


def flow_of(config: Config) -> Flow[..., Made]:
    """Return the flow that a configuration is one of."""
    return rloo if isinstance(config, RlooRun) else rs_dpo


def run_arm(config: Config) -> Made | ConfigurationError:
    """Run one arm under one seed; return its artifacts, or why it has none."""
    try:
        made: Made = flow_of(config)(**config.sections())
    except ConfigurationError as error:
        return error
    return made


def _run_alone(config: Config) -> Made | ConfigurationError:
    """Run one arm in a process of its own, which keeps Prefect's errors off the terminal as this one does."""
    with RunLog():
        return run_arm(config)
