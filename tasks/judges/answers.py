"""What judges have answered, kept for ever by what they were asked, so that nothing is asked twice.

An answer is written as a file of its own as soon as it is there, `judgments/fresh-<table key>/<id>.json`: a process
that is killed loses the requests under way. Whoever asks the judge next puts the files that it finds into a part of the
table `judgments`, and deletes them. The table is of one model and version; `prune` spares it, since its rows were paid
for.
"""

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ValidationError

from tasks.config.judges import JudgeConfig
from tasks.data.conversations import Messages
from tasks.pipeline.progress import log
from tasks.store.artifacts import Artifact, DamagedArtifactError, sha256_of
from tasks.store.drafts import canonical_json, keyed
from tasks.store.filesystem import in_parallel, persist, read_small_file, remove
from tasks.store.folders import AT_ONCE, Store
from tasks.store.growing import GrowingTable, index_parts, part_name
from tasks.store.parquet import read_columns, read_table, rows_of
from tasks.store.schemas import SCHEMAS
from tasks.store.scratch import cache_folder, locked

TABLE_VERSION = 1
KIND = "judgments"


class Answer(BaseModel):
    """What an endpoint answered."""

    text: str
    """Empty where the endpoint gave no text."""
    finish_reason: str
    """Such as `stop` and `length`; `none` where there was no choice at all."""
    prompt_tokens: int | None
    """As the endpoint counts; None where it does not."""
    completion_tokens: int | None
    model: str
    """What the endpoint calls the model that answered."""


def request_id(config: JudgeConfig, messages: Messages, attempt: int) -> str:
    """Return the SHA-256 of what decides an answer: model, version, messages, decoding and attempt."""
    decoding = {name: getattr(config, name) for name in ("temperature", "max_answer_tokens", "seed")}
    asked = {"model": config.model, "version": config.version, "messages": messages, "attempt": attempt}
    return sha256_of(canonical_json({**asked, **decoding}).encode())


class AnswerCache:
    """The answers of one model and version in a store."""

    def __init__(self, store: Store, config: JudgeConfig) -> None:
        """Name the table; nothing is read yet."""
        named = {"model": config.model, "version": config.version}
        self.table = GrowingTable(store, KIND, keyed(KIND, TABLE_VERSION, named, {}, named))
        self.fresh = f"{KIND}/fresh-{self.table.provenance.key}"
        self._parts: dict[str, Artifact] = {}
        """URI -> part whose ids are known."""
        self._place: dict[str, str] = {}
        """Id -> URI of the part that has the answer."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process of this machine asks the same judge for the same store, and keep them waiting."""
        folder = cache_folder() / "judges"
        folder.mkdir(parents=True, exist_ok=True)
        name = sha256_of(f"{self.table.store.uri} {self.table.provenance.key}".encode())
        lock = folder / f"{name[:32]}.lock"
        with locked(lock, wait=False) as held:
            if held:
                yield
                return
        log(f"another process asks {self.table.provenance.config['model']}: waiting, so that nothing is asked twice")
        with locked(lock, wait=True):
            yield

    def find(self, ids: Collection[str]) -> dict[str, Answer]:
        """Return the answers that there are, by id, after a look at what has been added.

        Raises:
            StoreError: The store cannot be read.
        """
        self.fold()
        self._look()
        wanted: dict[str, set[str]] = defaultdict(set)
        for id_ in ids:
            if id_ in self._place:
                wanted[self._place[id_]].add(id_)
        found = in_parallel(lambda uri: _read(self._parts[uri], wanted[uri]), wanted, AT_ONCE)
        return {id_: answer for answers in found for id_, answer in answers.items()}

    def keep(self, id_: str, answer: Answer) -> None:
        """Write an answer.

        Raises:
            StoreError: It could not be written.
        """
        self.table.store.write_beside(self.fresh, f"{id_}.json", answer.model_dump_json().encode())

    def fold(self) -> None:
        """Put the answers that are files of their own into a part of the table, then delete the files."""
        store = self.table.store
        names = store.list(self.fresh)
        read = in_parallel(lambda name: (name, self._read_fresh(name)), names, AT_ONCE)
        answers = {name: answer for name, answer in read if answer is not None}
        if not answers:
            return
        rows = [{"request_id": name.removesuffix(".json"), **answer.model_dump()} for name, answer in answers.items()]
        part = self.table.append(
            part_name([row["request_id"] for row in rows]), pa.Table.from_pylist(rows, SCHEMAS[KIND])
        )
        index_parts(store, {store.folder_of(part): part.digest})
        for _ in in_parallel(lambda name: self._drop(name), answers, AT_ONCE):
            pass

    def _read_fresh(self, name: str) -> Answer | None:
        """Return an answer from its file; None where another process has put it into a part, or it is damaged."""
        fs, path = self.table.store.fs, self.table.store.path(f"{self.fresh}/{name}")
        try:
            content = persist(lambda: read_small_file(fs, path), f"{self.table.store.uri}/{self.fresh}", "read")
            return Answer.model_validate_json(content)
        except (FileNotFoundError, ValidationError):
            return None

    def _drop(self, name: str) -> None:
        fs, path = self.table.store.fs, self.table.store.path(f"{self.fresh}/{name}")
        persist(lambda: remove(fs, path), f"{self.table.store.uri}/{self.fresh}", "written")

    def _look(self) -> None:
        """Read the ids of parts that have come since the last look."""
        new = {part.uri: part for part in self.table.look().each(besides=self._parts)}
        ids = in_parallel(lambda part: (part.uri, _ids(part)), new.values(), AT_ONCE)
        for uri, own in ids:
            self._parts[uri] = new[uri]
            self._place |= {id_: uri for id_ in own if id_ not in self._place}


def _ids(part: Artifact) -> list[str]:
    ids: list[str] = read_columns(part, ["request_id"])["request_id"].to_pylist()
    return ids


def _read(part: Artifact, ids: Collection[str]) -> Mapping[str, Answer]:
    """Return some answers of a part; none of one that has been damaged since."""
    try:
        rows = read_table(part)
    except DamagedArtifactError:
        return {}
    chosen = rows.filter(pc.is_in(rows["request_id"], pa.array(ids, pa.string())))
    return {row["request_id"]: _answer(row) for row in rows_of(chosen)}


def _answer(row: Mapping[str, Any]) -> Answer:
    return Answer(**{name: row[name] for name in Answer.model_fields})
