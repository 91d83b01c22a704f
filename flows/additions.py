"""What the commands that add rows to a store share: their arguments, their report, the event that they send."""

import argparse
import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.settings import PREFECT_API_URL
from pydantic import ValidationError

from flows.command_line import stop
from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.tally import Tally, log_unread_files
from tasks.pipeline.progress import log
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.filesystem import store_errors
from tasks.store.folders import Store, open_store


def open_addition(source: DataSource, store: str, max_bad_fraction: float) -> tuple[Store, Tally]:
    """Return the store that rows are added to, and the tally of the rows.

    Raises:
        ConfigurationError: The store cannot be written, or `max_bad_fraction` is out of bounds.
    """
    if not 0 <= max_bad_fraction <= 1:
        raise ConfigurationError(f"max_bad_fraction = {max_bad_fraction} must be from 0 to 1: a share of the rows")
    home = open_store(store)
    log_unread_files([source])
    return home, Tally(source.path, max_bad_fraction)


def report_addition(store: Store, what: str, tally: Tally, given: int, new: int) -> dict[str, Any]:
    """Log and return what an addition has come to, and announce it where it has added something.

    Args:
        store: Where rows were added.
        what: What they are, `prompts` or `preferences`.
        tally: What has happened to the rows that were read.
        given: Rows that are good, each once.
        new: Those of them that the store did not have.
    """
    counts = {"read": tally.total, "new": new, "known": given - new, "duplicate": tally.left_out["duplicate"]}
    report = {**counts, "bad": dict(tally.bad), "store": store.uri}
    log(
        f"{tally.name}: {tally.total} rows, {new} new {what}, {given - new} known, "
        f"{counts['duplicate']} duplicate, {tally.bad.total()} bad"
    )
    return {**report, "announced": new > 0 and announce(store, what, report)}


def announce(store: Store, what: str, report: dict[str, Any]) -> bool:
    """Send the event `<what>.added`, which starts the runs that wait for it; tell whether the server has taken it.

    The rows are in the store whatever happens here, so a server that is missing or down is logged, not raised.
    """
    if PREFECT_API_URL.value() is None:
        log(f"sent no event: PREFECT_API_URL is not set. Runs that wait for {what}.added do not start by themselves")
        return False
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:12]
    resource = {"prefect.resource.id": f"rs-dpo.{what}.{name}", "prefect.resource.name": store.uri}
    event = Event.model_validate({"event": f"{what}.added", "resource": resource, "payload": report})
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except httpx.HTTPError as error:
        log(
            f"sent no event, the server did not take it ({type(error).__name__}): check PREFECT_API_URL and "
            f"PREFECT_API_AUTH_STRING, and start the runs that wait for {what}.added by hand"
        )
        return False
    return True


def add(options: argparse.Namespace, kind: type[DataSource], flow: Callable[..., dict[str, Any]], **more: Any) -> None:
    """Add rows as the command line says; exit with 2 and one message where something is typed wrong or fails.

    Args:
        options: What the command's parser has parsed.
        kind: What the source is; its fields are options.
        flow: The flow's function. Not the flow: that would start a temporary server where there is none, and fail
            where it is down.
        **more: Arguments that this flow has alone.
    """
    try:
        fields = {name: value for name, value in vars(options).items() if name in kind.model_fields}
        source = kind(path=options.source, **fields)
        report = flow(source, options.store, options.max_bad_fraction, **more)
    except store_errors(ConfigurationError, ValidationError, DamagedArtifactError) as error:
        stop(error)
    if options.json:
        print(json.dumps(report), flush=True)
