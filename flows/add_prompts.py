"""Add prompts to the store, for runs whose `data.prompts` is `added`.

python -m flows.add_prompts new_prompts.jsonl --store s3://bucket/prefix
"""

import argparse
import hashlib
import json
from typing import Any

import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.settings import PREFECT_API_URL
from pydantic import ValidationError

from flows.command_line import stop
from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.added_prompts import append_prompts
from tasks.data.tally import Tally, log_unread_files, read_records
from tasks.pipeline.progress import log
from tasks.prompts import collect_prompts
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.filesystem import STORE_ERRORS
from tasks.store.folders import Store, open_store


@flow(name="add-prompts")
def add_prompts(source: DataSource, store: str = "./.rsdpo", max_bad_fraction: float = 0.01) -> dict[str, Any]:
    """Add the prompts of a source that the store does not have yet, and announce them as the event `prompts.added`.

    Args:
        source: A file, a folder or a hub dataset, as for `data.prompts`.
        store: A folder, `file:///...` or `s3://bucket/prefix`.
        max_bad_fraction: Share of bad rows that is left out and counted; above it nothing is added.

    Returns:
        Rows `read`; prompts that were `new` and `known`; rows that were `duplicate` within the source and, by reason,
        `bad`; the `store`; and whether the event was `announced`.

    Raises:
        ConfigurationError: There is no such source, it cannot be read or has too many bad rows, the store cannot be
            written, or `max_bad_fraction` is out of bounds.
    """
    if not 0 <= max_bad_fraction <= 1:
        raise ConfigurationError(f"max_bad_fraction = {max_bad_fraction} must be from 0 to 1: a share of the rows")
    home, tally = open_store(store), Tally(source.path, max_bad_fraction)
    log_unread_files([source])
    rows = collect_prompts(read_records(source, "prompts", tally), tally)
    new = append_prompts(home, rows)
    counts = {"read": tally.total, "new": new, "known": len(rows) - new, "duplicate": tally.left_out["duplicate"]}
    report = {**counts, "bad": dict(tally.bad), "store": home.uri}
    log(
        f"{source.path}: {tally.total} rows, {new} new prompts, {len(rows) - new} known, "
        f"{counts['duplicate']} duplicate, {tally.bad.total()} bad"
    )
    return {**report, "announced": new > 0 and announce(home, report)}


def announce(store: Store, report: dict[str, Any]) -> bool:
    """Send the event `prompts.added`, which starts the runs that wait for it; tell whether the server has taken it.

    The prompts are in the store whatever happens here, so a server that is missing or down is logged, not raised.
    """
    if PREFECT_API_URL.value() is None:
        log("sent no event: PREFECT_API_URL is not set. Runs that wait for prompts.added do not start by themselves")
        return False
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:12]
    resource = {"prefect.resource.id": f"rs-dpo.prompts.{name}", "prefect.resource.name": store.uri}
    event = Event.model_validate({"event": "prompts.added", "resource": resource, "payload": report})
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except httpx.HTTPError as error:
        log(
            f"sent no event, the server did not take it ({type(error).__name__}): check PREFECT_API_URL and "
            "PREFECT_API_AUTH_STRING, and start the runs that wait for prompts.added by hand"
        )
        return False
    return True


def main(arguments: list[str] | None = None) -> None:
    """Add prompts; exit with 2 and one message where something is typed wrong or cannot be read or written."""
    options = _parser().parse_args(arguments)
    try:
        source = DataSource(path=options.source, name=options.name, data_dir=options.data_dir, split=options.split)
        # Not as a flow: that would start a temporary server where there is none, and fail where it is down.
        report = add_prompts.fn(source, options.store, options.max_bad_fraction)
    except (ConfigurationError, ValidationError, DamagedArtifactError, *STORE_ERRORS) as error:
        stop(error)
    if options.json:
        print(json.dumps(report), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Add prompts to a store, for runs with data.prompts: added.")
    parser.add_argument("source", help="JSONL, Parquet, a folder, an s3:// URI or a hub dataset")
    parser.add_argument("--store", default="./.rsdpo", help="a folder, file:///... or s3://bucket/prefix")
    parser.add_argument("--name", help="configuration of a hub dataset or a folder")
    parser.add_argument("--data-dir", help="folder within a hub dataset or a folder")
    parser.add_argument("--split", default="train", help="split of a hub dataset or a folder")
    parser.add_argument("--max-bad-fraction", type=float, default=0.01, help="share of bad rows that is left out")
    parser.add_argument("--json", action="store_true", help="print the counts as one last line of JSON")
    return parser


if __name__ == "__main__":
    main()
