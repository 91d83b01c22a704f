"""Deletes what no run that is kept can reach. A record of each run (`tasks/store/runs.py`) says what it looked at."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.inspection.catalog import Catalog, Entry, read_catalog
from tasks.store.filesystem import in_parallel, persist
from tasks.store.folders import Store
from tasks.store.index import drop_from_index
from tasks.store.runs import RUNS, Run, RunReader

ADDED = ("tables/prompts/", "tables/added_preferences/", "tables/judgments/")
"""What people have added, and what judges were paid for: data that nothing can compute again."""
QUIET = timedelta(days=1)
"""A folder without a manifest is taken for a dead writer's once nothing in it has changed for so long."""
BATCH = 64
WORKERS = 16


class Pruned(NamedTuple):
    """What went, or would go."""

    entries: list[Entry]
    """Folders; the newest last."""
    runs: list[Run]
    """Records of runs."""

    @property
    def size(self) -> int:
        """Return the bytes that are free again."""
        return sum(entry.size for entry in self.entries)


def prune(store: Store, keep_last: int, dry_run: bool = False) -> Pruned:
    """Delete what neither the last finished runs nor those under way can reach.

    Artifacts go before the records that name them, and each batch only after another look at the runs: what a run
    that has begun meanwhile looks at stays. Interrupted, it goes on when it is called again.

    Args:
        store: The store to tidy up.
        keep_last: Finished runs to keep, at least 1.
        dry_run: Delete nothing.

    Raises:
        ConfigurationError: `keep_last` is below 1, or the store has no records, so that nobody knows what is in use.
        DamagedArtifactError: The record of a run cannot be read.
    """
    if keep_last < 1:
        raise ConfigurationError(
            f"--keep-last {keep_last} must be at least 1: without a run to keep, everything would go"
        )
    catalog, reader = read_catalog(store), RunReader(store)
    runs = reader.read()
    found = Pruned(*_split(store, catalog, runs, keep_last))
    if dry_run:
        return found
    gone: list[Entry] = []
    still = {entry.folder for entry in found.entries}
    for start in range(0, len(found.entries), BATCH):
        # As long as no record is another one, no more is in use: a run may end, but none comes back to life.
        if (now := reader.read()) != runs:
            runs, still = now, {entry.folder for entry in _split(store, catalog, now, keep_last)[0]}
        batch = [entry for entry in found.entries[start : start + BATCH] if entry.folder in still]
        batch = [entry for entry in batch if entry.manifest is not None or _is_quiet(store, entry)]
        for _ in in_parallel(lambda entry: store.delete(entry.folder), batch, WORKERS):
            pass
        gone.extend(batch)
    for table in {entry.table for entry in gone if entry.sort == "part"}:
        names = {entry.folder.rpartition("/")[2] for entry in gone if entry.table == table}
        drop_from_index(f"{store.uri}/{table}", names)
    for run in found.runs:
        store.delete(f"{RUNS}/{run.id}")
    return Pruned(gone, found.runs)


def kept_runs(runs: list[Run], keep_last: int) -> list[Run]:
    """Return the last finished runs, those since the oldest of them that are pilots or did not finish, those in use.

    A pilot takes no whole run's place; where there are pilots alone, they count.
    """
    ended = [run for run in runs if run.status == "finished"]
    finished = ([run for run in ended if not run.is_pilot()] or ended)[-keep_last:]
    oldest = finished[0].id if finished else ""

    def is_kept(run: Run) -> bool:
        return run in finished or (run.id > oldest and (run.status == "running" or run.is_pilot())) or run.in_use()

    return list(filter(is_kept, runs))


def reached(catalog: Catalog, runs: Iterable[Run]) -> set[str]:
    """Return the folders that runs looked at, their inputs to the last, and all parts that these name."""
    folders = {folder for run in runs for folder in (*run.stages, *run.artifacts.values())}
    while missing := set(_missing_inputs(catalog, folders)) - folders:
        folders |= missing
    manifests = [entry.manifest for folder in folders if (entry := catalog.entries.get(folder)) and entry.manifest]
    parts = folders.union(*((*manifest.parts, *manifest.keeps) for manifest in manifests))
    # The next run reads a merged part in place of those whose rows it holds.
    return parts | {entry.folder for entry in catalog.select("part") if not parts.isdisjoint(entry.replaces)}


def _missing_inputs(catalog: Catalog, folders: set[str]) -> Iterator[str]:
    """Yield the inputs of folders that are not among them. Equal content under another key serves as well."""
    entries = [entry for folder in folders if (entry := catalog.entries.get(folder))]
    have = {entry.digest for entry in entries}
    for entry in entries:
        digests = entry.manifest.provenance.inputs.values() if entry.manifest else ()
        for digest in set(digests) - have:
            yield from (source.folder for source in catalog.with_digest(digest))


def _split(store: Store, catalog: Catalog, runs: list[Run], keep_last: int) -> tuple[list[Entry], list[Run]]:
    """Return the entries and the records to delete.

    No manifest names the parts of a stage that is not done, so what was made since an unfinished run began stays. While
    a run is in use, every part and every folder without a manifest stays: the run may still need them. Every part stays
    too where a stage of a kept run that has finished has no readable manifest: nobody knows which parts it names.
    """
    if not runs:
        raise ConfigurationError(
            f"{store.uri} has no record of any run, so nobody knows what is in use: run the pipeline once, then prune"
        )
    kept, stages = kept_runs(runs, keep_last), {folder.partition("/")[0] for run in runs for folder in run.stages}
    folders, in_use = reached(catalog, kept), [run for run in kept if run.in_use()]
    names_unknown = any(
        _is_damaged(catalog, folder) for run in kept if run.status == "finished" for folder in run.stages
    )
    since = min((run.started for run in kept if run.status == "running"), default=None)

    def goes(entry: Entry) -> bool:
        if entry.folder in folders or _stage_folder(entry) in folders or entry.folder.startswith(ADDED):
            return False
        if names_unknown and entry.sort == "part":
            return False
        if in_use and (entry.sort == "part" or entry.manifest is None):
            return False
        if entry.manifest is None:
            return (entry.sort != "stage" or _stage_folder(entry).partition("/")[0] in stages) and _is_quiet(
                store, entry
            )
        return not _is_since(entry, since)

    order = {"stage": 0, "checkpoint": 1, "part": 2}
    entries = sorted(filter(goes, catalog.entries.values()), key=lambda entry: (order[entry.sort], entry.order))
    return entries, [run for run in runs if run not in kept]


def _is_damaged(catalog: Catalog, folder: str) -> bool:
    entry = catalog.entries.get(folder)
    return entry is None or entry.manifest is None


def _stage_folder(entry: Entry) -> str:
    """Return the folder of the stage that a checkpoint, or an output itself, belongs to."""
    return entry.folder.removeprefix("checkpoints/").partition("/step-")[0]


def _is_since(entry: Entry, start: datetime | None) -> bool:
    """Tell whether a folder was committed after a run began; its manifest has no fractions of a second."""
    return start is not None and entry.made is not None and entry.made >= start.replace(microsecond=0)


def _is_quiet(store: Store, entry: Entry) -> bool:
    """Tell whether nothing in a folder has changed for long, and nothing changes meanwhile."""

    def changed() -> list[datetime]:
        return [store.fs.modified(path) for path in store.fs.find(store.path(entry.folder))]

    try:
        return all(datetime.now(UTC) - time > QUIET for time in persist(changed, store.uri, "read"))
    except FileNotFoundError:  # gone between the two looks
        return False
