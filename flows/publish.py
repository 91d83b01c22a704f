"""Push a run's aligned model, with its model card, to the hub.

python -m flows.publish STORE RUN REPO --dry-run
python -m flows.publish .rsdpo last owner/name
"""

if __name__ == "__main__":  # a wrong flag is told before the imports below, which take seconds
    from flows.arguments import publish_parser

    publish_parser().parse_args()


import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal

from flows.arguments import publish_parser
from flows.command_line import stop
from tasks.config.errors import ConfigurationError
from tasks.publishing.facts import choose_run, gather
from tasks.publishing.files import file_contents, file_sizes
from tasks.publishing.hub import check_repo, push
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.filesystem import store_errors
from tasks.store.folders import Store


def main(arguments: list[str] | None = None) -> None:
    """Publish, or print what would be; exit with 2 where something is wrong, 1 where the hub or the store fails."""
    options = publish_parser().parse_args(arguments)
    try:
        report = publish(options)
    except ConfigurationError as error:
        stop(error)
    except store_errors(DamagedArtifactError) as error:
        stop(error, status=1)
    if options.json:
        print(json.dumps(report), flush=True)


def publish(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was published, or would be.

    Returns:
        The `run`, the `repo`, whether it is `private`, `files` (name -> bytes), and `commit`: its address, None in a
        dry run.

    Raises:
        ConfigurationError: The run, the repository, the token or the adapter is not there or not as it should be.
        HubError: The hub could not be reached, or failed.
    """
    check_repo(options.repo)
    store = Store(options.store)
    run = choose_run(store, options.run)
    facts = gather(store, run)
    sizes = file_sizes(facts, options.repo, options.adapter)
    report = {"run": run.id, "repo": options.repo, "private": not options.public, "files": sizes, "commit": None}
    if not options.json:
        _print(report, options.dry_run)
    if options.dry_run:
        return report
    files = file_contents(store, facts, options.repo, options.adapter)
    commit = push(options.repo, files, options.public, f"RS-DPO run {run.id}")
    if not options.json:
        print(f"published: {commit}")
    return {**report, "commit": commit}


def _print(report: Mapping[str, Any], dry_run: bool) -> None:
    sizes = report["files"]
    for name, size in sorted(sizes.items()):
        print(f"{decimal(size):>10}  {name}")
    where = f"{report['repo']} ({'private' if report['private'] else 'public'})"
    action = "would publish" if dry_run else "publishing"
    total = decimal(sum(sizes.values()))
    print(f"{action} {len(sizes)} files, {total}, of run {report['run']} to {where}", flush=True)


if __name__ == "__main__":
    main()
