"""Sampling into a real store: which prompts go first, what is in flight, what an error or an interruption leaves."""

import json
import random
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

import tasks.sampling.completions
import tasks.sampling.drawing
from tasks.config.settings import Decoding
from tasks.data.records import prompt_id
from tasks.examples.world import write_base_model
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.sampling.completions import missing_completions, sample_slices
from tasks.sampling.transformers_engine import TransformersEngine
from tasks.store.artifacts import Artifact, Manifest, Provenance
from tasks.store.filesystem import StoreError
from tasks.store.folders import Store
from tasks.store.parquet import read_table, table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import Slice

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS, K = 21, 2
DECODING = Decoding(k=K, max_new_tokens=3, part_size=2, engine="transformers")


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("policy")
    write_base_model(folder, seed=0)
    return Artifact(kind="model", uri=str(folder), digest="f" * 64)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Artifact:
    conversations = [[{"role": "user", "content": f"{'so ' * (n % 7)}is it {n} ?"}] for n in range(PROMPTS)]
    rows = [{"prompt_id": prompt_id(messages), "messages": messages, "source": "test"} for messages in conversations]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    provenance = Provenance(stage="load_prompts", version=1, key="0" * 64)
    manifest = Manifest(kind="prompts", digest=format_digest(rows_digest(table)), rows=PROMPTS, provenance=provenance)
    store = Store(str(tmp_path_factory.mktemp("prompts")))
    return store.commit("load_prompts/0", {"rows.parquet": table_bytes(table, "prompts")}, manifest)


class Sampling(NamedTuple):
    """What is sampled."""

    policy: Artifact
    prompts: Artifact

    def into(self, store: Store) -> tuple[list[Slice], int]:
        return sample_slices(store, self.policy, self.prompts, DECODING)


@pytest.fixture(scope="module")
def sampling(policy, prompts) -> Sampling:
    return Sampling(policy, prompts)


@pytest.fixture(scope="module")
def order(policy, prompts) -> list[str]:
    """The prompts' ids, longest first."""
    tokenizer = load_tokenizer(Path(policy.uri))
    rows = read_table(prompts).to_pylist()
    lengths = {row["prompt_id"]: len(encode_prompt(tokenizer, row["messages"])) for row in rows}
    assert 3 < len(set(lengths.values())) < PROMPTS  # ties, too
    return sorted(lengths, key=lambda id_: (-lengths[id_], id_))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


def committed(store: Store) -> list[Path]:
    return list(Path(store.root).glob("tables/completions/*/*/manifest.json"))


def rows_of(slices: list[Slice]) -> list[dict]:
    rows = [row for slice_ in slices for row in slice_.read().to_pylist()]
    return sorted(rows, key=lambda row: (row["prompt_id"], row["completion_id"]))


@pytest.fixture(scope="module")
def undisturbed(sampling, tmp_path_factory) -> list[Slice]:
    slices, sampled = sampling.into(Store(str(tmp_path_factory.mktemp("store"))))
    assert sampled == PROMPTS
    return slices


@pytest.fixture
def engines(monkeypatch) -> list["Watched"]:
    """The engines that the stage opens, each a `Watched`."""
    opened: list[Watched] = []

    def open_engine(model, decoding, max_model_len, trust_remote_code):
        opened.append(Watched(model, decoding, trust_remote_code))
        return opened[-1]

    monkeypatch.setattr(tasks.sampling.completions, "open_engine", open_engine)
    return opened


class Watched(TransformersEngine):
    """The transformers engine, completing its prompts in any order; notes what is added, acts as a step begins."""

    begin = staticmethod(lambda engine: None)

    def __init__(self, *args):
        super().__init__(*args)
        self.added, self.steps, self.rng = [], 0, random.Random(1)

    def add(self, number, prompt, seed, count):
        self.added.append(number)
        super().add(number, prompt, seed, count)

    def step(self):
        self.steps += 1
        self.begin(self)
        self.waiting.rotate(self.rng.randrange(len(self.waiting)))
        return super().step()


def do(monkeypatch, action) -> None:
    """Have each engine do something before every step."""
    monkeypatch.setattr(Watched, "begin", staticmethod(action))


# Order and parts


def test_parts_are_cut_from_the_longest_prompts_to_the_shortest(undisturbed, order):
    parts = [slice_.read()["prompt_id"].to_pylist()[::K] for slice_ in undisturbed]
    assert sorted(parts, key=lambda part: order.index(part[0])) == [order[n : n + 2] for n in range(0, PROMPTS, 2)]


def test_prompts_are_begun_in_that_order(store, sampling, order, engines):
    sampling.into(store)
    assert engines[0].added == list(range(PROMPTS))


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("ahead", [1, 100])
def test_how_much_is_in_flight_changes_no_part(ahead, store, sampling, undisturbed, monkeypatch):
    monkeypatch.setattr(tasks.sampling.drawing, "PARTS_AHEAD", ahead)
    monkeypatch.setattr(tasks.sampling.drawing, "BATCHES_AHEAD", ahead)
    slices, _ = sampling.into(store)
    names = [[(s.part.uri.rpartition("/")[2], s.part.digest) for s in which] for which in (slices, undisturbed)]
    assert names[0] == names[1]


# What is in flight


def test_few_prompts_are_begun_and_not_yet_written(store, sampling, engines, monkeypatch):
    unwritten = []
    do(monkeypatch, lambda engine: unwritten.append(len(engine.added) - 2 * len(committed(store))))
    sampling.into(store)
    assert unwritten[0] == 8  # four parts of two prompts
    assert max(unwritten) == 8
    assert len(unwritten) == PROMPTS


def test_a_slow_store_holds_up_the_feeding(store, sampling, undisturbed, engines, monkeypatch):
    append, written = tasks.sampling.completions.GrowingTable.append, []

    def append_when_all_is_drawn(table, *args, **stats):
        while engines[0].waiting:
            time.sleep(0.001)
        written.append(len(engines[0].added))
        return append(table, *args, **stats)

    monkeypatch.setattr(tasks.sampling.completions.GrowingTable, "append", append_when_all_is_drawn)
    slices, _ = sampling.into(store)
    assert written[0] == 8
    assert rows_of(slices) == rows_of(undisturbed)


# What ends it early


def writers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("write-parts")]


def go_on(store, sampling, undisturbed, engines) -> None:
    """Run again: only what is missing is drawn, and the whole is what an undisturbed run has."""
    kept = {path: path.stat().st_mtime_ns for path in committed(store)}
    assert 0 < len(kept) < len(undisturbed)
    missing = missing_completions(store, *sampling, DECODING)
    slices, sampled = sampling.into(store)
    assert sampled == len(missing) == len(engines[-1].added) == PROMPTS - count(kept) // K
    assert rows_of(slices) == rows_of(undisturbed)
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in committed(store)}.items()
    assert {slice_.part.digest for slice_ in slices} == {slice_.part.digest for slice_ in undisturbed}


def count(manifests) -> int:
    return sum(json.loads(path.read_text())["rows"] for path in manifests)


def wait_for_a_part(store: Store) -> None:
    deadline = time.monotonic() + 60
    while not committed(store):
        assert time.monotonic() < deadline, "no part was written while the engine worked"
        time.sleep(0.001)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_goes_on_where_it_was(error, store, sampling, undisturbed, engines, monkeypatch):
    def interrupt(engine):
        if engine.steps == 7:
            wait_for_a_part(store)
            raise error("in the middle")

    do(monkeypatch, interrupt)
    with pytest.raises(error, match="in the middle"):
        sampling.into(store)
    assert writers() == []
    assert list(Path(store.root).rglob(".partial-*")) == []
    do(monkeypatch, lambda engine: None)
    go_on(store, sampling, undisturbed, engines)


def test_an_error_of_the_writer_ends_the_run_and_keeps_what_was_committed(
    store, sampling, undisturbed, engines, monkeypatch
):
    tables = Path(store.root) / "tables"

    def close_the_store(engine):
        if engine.steps == 7:
            wait_for_a_part(store)
            tables.rename(tables.with_name("away"))
            tables.write_text("in the way")

    do(monkeypatch, close_the_store)
    with pytest.raises(
        StoreError, match=r"tables/completions/.* cannot be (written|read) .*permissions and disk space"
    ):
        sampling.into(store)
    assert writers() == []
    assert engines[0].steps < PROMPTS
    tables.unlink()
    tables.with_name("away").rename(tables)
    do(monkeypatch, lambda engine: None)
    go_on(store, sampling, undisturbed, engines)


def test_sampling_says_how_far_it_is_and_how_many_tokens_a_second(sampling, store, monkeypatch, capsys):
    monkeypatch.setattr("tasks.pipeline.progress.LINE_SECONDS", 0.0)
    sampling.into(store)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sampling prompts: ")]
    assert re.fullmatch(r"sampling prompts: 21 / 21 \(100%\) in \d+ s, [\d.]+/s, [\d,]+ tokens/s", lines[-1])
    assert any(re.match(r"sampling prompts: 7 / 21 \(33%\), [\d.]+/s, \d+ s left, ", line) for line in lines)
