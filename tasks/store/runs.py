"""The record of a run, in the store itself: which stages it looked at, so that pruning knows what is in use.

A record is a committed folder without files, `runs/<start>-<random>`, rewritten before each stage. A run that is killed
leaves a record that says `running`; whether it still runs is told from its process, or from its last sign of life.
"""

import json
import os
import secrets
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.store.artifacts import MANIFEST, Artifact, DamagedArtifactError, Manifest, Provenance, SafePath, sha256_of
from tasks.store.filesystem import in_parallel, persist
from tasks.store.folders import Store
from tasks.store.listing import SizeAndTag, list_files
from tasks.store.manifests import read_manifest

RUNS = "runs"
KIND = "run"
SILENCE = timedelta(days=7)
"""After so long without a new stage a run of another host, whose processes cannot be seen from here, is over."""
READERS = 32


class Run(BaseModel):
    """What a record says: the `stats` of its manifest."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Name of the record's folder; the names sort by start."""
    status: Literal["running", "finished"] = "running"
    host: str
    pid: int
    process: str
    """Tells the process from others that have, or had, its pid: see `process_of`."""
    started: datetime
    updated: datetime
    stages: tuple[SafePath, ...] = ()
    """Folders of the stages that it looked at, in order."""
    noted: tuple[datetime, ...] = ()
    """When it began to look at each of them; a record of an earlier release has no times."""
    expected: tuple[str, ...] = ()
    """Names of the stages that its configuration leads to, in order."""
    flow_run_id: str = ""
    """What Prefect calls the run; empty outside of a flow run."""
    artifacts: dict[str, SafePath] = {}
    """What a finished run returned: name -> folder."""
    config: dict[str, Any] = {}
    """Every section of its configuration; empty in records of earlier releases."""
    verdicts: tuple[dict[str, Any], ...] = ()
    """What the monitors found: `name`, `about`, `level`, `value`, `text`."""

    def is_pilot(self) -> bool:
        """Tell whether the run went through the pipeline with a few prompts, to predict the whole."""
        return (self.config.get("data") or {}).get("pilot") is not None

    def in_use(self) -> bool:
        """Tell whether the run goes on: its process lives here, or it wrote from elsewhere not long ago."""
        if self.status == "finished":
            return False
        if self.process and _machine(self.process) == _machine(process_of(os.getpid())) and not _is_hidden(self.pid):
            return process_of(self.pid) == self.process
        return datetime.now(UTC) - self.updated < SILENCE


class RunRecord:
    """Writes the record of the run under way in this process."""

    def __init__(self, store: Store, run: Run) -> None:
        """Continue a record; nothing is written yet."""
        self.store = store
        self.run = run

    @classmethod
    def begin(cls, store: Store, **facts: Any) -> Self:
        """Write the record of a run that begins now; `facts` are fields of `Run` that are known already."""
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
        pid = os.getpid()
        where = {"host": socket.gethostname(), "pid": pid, "process": process_of(pid)}
        run = Run(id=name, started=now, updated=now, **where, **facts)
        record = cls(store, run)
        record._write()
        return record

    def note(self, folder: str) -> None:
        """Write down, once, that the run is about to look at a stage's folder."""
        if folder not in self.run.stages:
            self._write(stages=(*self.run.stages, folder), noted=(*self.run.noted, datetime.now(UTC)))

    def judge(self, verdicts: list[dict[str, Any]]) -> Artifact:
        """Write down what the monitors have found so far; return the record."""
        return self._write(verdicts=tuple(verdicts))

    def add(self, name: str, artifact: Artifact) -> None:
        """Write down something else that the run returned."""
        self._write(artifacts={**self.run.artifacts, name: self.store.folder_of(artifact)})

    def finish(self, artifacts: dict[str, Artifact]) -> None:
        """Write down that the run is over and what it returned; artifacts outside of the store are left out."""
        here = {name: artifact for name, artifact in artifacts.items() if artifact.uri.startswith(self.store.uri + "/")}
        inside = {name: self.store.folder_of(artifact) for name, artifact in here.items()}
        self._write(status="finished", artifacts=inside)

    def _write(self, **changes: Any) -> Artifact:
        self.run = self.run.model_copy(update={"updated": datetime.now(UTC), **changes})
        stats = self.run.model_dump(mode="json")
        digest = sha256_of(json.dumps(stats, sort_keys=True).encode())
        provenance = Provenance(stage=KIND, version=1, key=self.run.id)
        manifest = Manifest(kind=KIND, digest=digest, stats=stats, provenance=provenance)
        return self.store.commit(f"{RUNS}/{self.run.id}", {}, manifest)


def list_runs(store: Store) -> tuple[list[Run], list[str]]:
    """Return the runs of a store, oldest first, and the folders of records that cannot be read."""
    folders = [f"{RUNS}/{name}" for name in store.list(RUNS)]
    found = _read_all(store, folders)
    damaged = [folder for folder, run in zip(folders, found, strict=True) if run is None and store.has_manifest(folder)]
    return [run for run in found if run is not None], damaged


class RunReader:
    """Reads the records of a store's runs again and again: each time those alone that may have changed.

    A record is another file wherever it is written again, by a run that has finished too. So one listing says which
    are as they were. Those of runs in use are read whatever it says, and so are those that it does not show.
    """

    def __init__(self, store: Store) -> None:
        """Begin; nothing is read yet."""
        self.store = store
        self._read: dict[str, tuple[SizeAndTag | None, Run]] = {}
        """Name of a record -> what the listing said of its file before it was read, if anything, and the run."""

    def read(self) -> list[Run]:
        """Return the runs of the store as they are now, oldest first.

        Raises:
            DamagedArtifactError: A record cannot be read, so that nobody knows what its run uses.
        """
        names = self.store.list(RUNS)
        files = self._files() if names else {}
        runs = {
            name: run
            for name, (file, run) in self._read.items()
            if file is not None and files.get(name) == file and not run.in_use()
        }
        folders = [f"{RUNS}/{name}" for name in names if name not in runs]
        for folder, run in zip(folders, _read_all(self.store, folders), strict=True):
            name = folder.rpartition("/")[2]
            if run is not None:
                runs[name] = run
                self._read[name] = files.get(name), run
            elif self.store.has_manifest(folder):
                raise DamagedArtifactError(
                    f"{self.store.uri}/{folder} is damaged, so nobody knows what that run uses: delete it if the run "
                    "is over"
                )
        return [runs[name] for name in names if name in runs]

    def _files(self) -> dict[str, SizeAndTag]:
        """Return name of a record -> what a listing says of its file."""
        root = self.store.path(RUNS)
        found = persist(lambda: list_files(self.store.fs, root), f"{self.store.uri}/{RUNS}", "read")
        end = f"/{MANIFEST}"
        return {path.removesuffix(end): file for path, file in found.items() if path.endswith(end)}


def read_runs(store: Store) -> list[Run]:
    """Return the runs of a store, oldest first.

    Raises:
        DamagedArtifactError: A record cannot be read, so that nobody knows what its run uses.
    """
    return RunReader(store).read()


def process_of(pid: int) -> str:
    """Return where a process is (boot and PID namespace) and its start in clock ticks; "" where there is none (Linux).

    Host names would not do: clones and containers share them. A lock would not either: S3 has none. The number of a
    namespace is given again only when no process is left in it, and a start then differs: so no live run looks dead.
    """
    try:
        # The name, in parentheses, may hold spaces; the start is the 22nd field of all, the 20th after the name.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state == "Z" else f"{boot}/{os.readlink('/proc/self/ns/pid')} {fields[18]}"


def _is_hidden(pid: int) -> bool:
    """Tell whether a process is another user's that /proc does not show (`hidepid`, as on shared machines)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    except ProcessLookupError:
        return False
    return False


def _machine(process: str) -> str:
    return process.partition(" ")[0]


def _read_all(store: Store, folders: list[str]) -> list[Run | None]:
    return list(in_parallel(lambda folder: _read(store, folder), folders, READERS))


def _read(store: Store, folder: str) -> Run | None:
    try:
        return Run.model_validate(read_manifest(f"{store.uri}/{folder}").stats)
    except (DamagedArtifactError, ValidationError):
        return None
