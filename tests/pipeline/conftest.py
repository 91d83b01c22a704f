"""Fixtures that the tests of pipeline share."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from doubles import Double
from prefect import flow


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
