"""Data of any size go through memory a few rows at a time, and come out as they did when all were held."""

import heapq
import json
import weakref

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loaded import asked, draft, id_of, load, no_held_out, write

from tasks.config.data import DataConfig
from tasks.data import added_rows
from tasks.data.added_prompts import ADDED_PROMPTS
from tasks.data.loading import commit_rows
from tasks.data.prompt_table import PromptTable, hash_fraction
from tasks.data.records import Record
from tasks.data.tally import Tally
from tasks.prompts import collect_prompts, draw_pilot, draw_share
from tasks.store import parquet
from tasks.store.artifacts import NOTHING, sha256_of
from tasks.store.drafts import canonical_json
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes, read_files
from tasks.store.parquet import read_table, stored_rows, table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.training_data import load_preferences

PIECE, AT_ONCE = 10, 3


class Messages(list):
    """A conversation that tells whether anything still holds it."""

    __hash__ = object.__hash__


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr("tasks.store.parquet.ROWS_PER_FILE", PIECE)
    monkeypatch.setattr("tasks.store.parquet.ROWS_AT_ONCE", AT_ONCE)


def row(number):
    return {"prompt_id": f"p{number}", "messages": [{"role": "user", "content": f"{number}"}], "source": "test"}


def test_few_rows_are_held_however_many_there_are(local, small_files):
    alive, most = weakref.WeakSet(), []

    def records():
        for number in range(20 * PIECE):
            messages = Messages([{"role": "user", "content": f"Question {number}?"}])
            alive.add(messages)
            most.append(len(alive))
            yield f"a.jsonl line {number}", Record(messages)

    tally = Tally("a.jsonl", 0.0)
    found = commit_rows(draft(local), "prompts", collect_prompts(records(), tally), {})
    assert found.rows == 20 * PIECE
    assert max(most) <= AT_ONCE + 2


def test_files_and_digest_are_those_of_all_rows_at_once(tmp_path, local, policy, small_files):
    texts = [f"Question {n % 37}?" for n in range(100)]
    rows = [*asked(texts[:50]), {"prompt": ""}, *asked(texts[50:])]
    data = DataConfig(
        prompts=write(tmp_path / "a.jsonl", rows),
        evaluation_prompts=write(tmp_path / "e.jsonl", asked(["Question 3?"])),
        max_prompts=25,
        max_bad_fraction=0.1,
    )
    _, prompts = load(local, policy, data)
    kept = [f"Question {n}?" for n in range(37) if n != 3][:25]
    table = pa.Table.from_pylist(
        [
            {"prompt_id": id_of(text), "messages": [{"role": "user", "content": text}], "source": "a.jsonl"}
            for text in kept
        ],
        SCHEMAS["prompts"],
    )
    assert prompts.digest == format_digest(rows_digest(table.drop_columns("source")))
    cuts = {f"rows-{n:05d}.parquet": table.slice(n * PIECE, PIECE) for n in range(3)}
    assert list(read_files(prompts)) == list(cuts)
    assert all(read_bytes(prompts, name) == table_bytes(own, "prompts") for name, own in cuts.items())
    left_out = {"duplicate": 63 - 2, "held out for evaluation": 3, "beyond the configured number": 11}
    assert prompts.stats == {"read": 101, "bad": {"empty prompt": 1}, "left_out": left_out}


@pytest.mark.parametrize("pilot", [2, 7, 29])
def test_a_pilot_is_the_first_by_hash_in_that_order(local, small_files, pilot):
    prompts = commit_rows(draft(local), "prompts", map(row, range(30)), {})
    drawn = draw_pilot.body(draft(local), prompts, pilot)
    by_hash = sorted(PromptTable(prompts).ids, key=lambda id_: hash_fraction(f"pilot:{id_}"))
    assert PromptTable(drawn).ids == by_hash[:pilot]
    with pytest.raises(ValueError, match=r"data\.pilot = 30 must be less than the 30 prompts"):
        draw_pilot.body(draft(local), prompts, 30)


def test_shares_are_all_prompts_between_them_each_in_the_order_of_all(local, small_files):
    prompts = commit_rows(draft(local), "prompts", map(row, range(30)), {})
    shares = [PromptTable(draw_share.body(draft(local), prompts, (n, 3))).ids for n in (1, 2, 3)]
    every = PromptTable(prompts).ids
    assert sorted(heapq.merge(*map(sorted, shares))) == sorted(every)
    assert all(own == [id_ for id_ in every if id_ in own] for own in shares)
    assert list(stored_rows(prompts)) == read_table(prompts).to_pylist()


MARGINS = st.sampled_from([None, 0.0, -0.0, 1.5])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), MARGINS), min_size=1, max_size=12))
def test_equal_preferences_are_taken_once_as_comparing_them_does(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"prompt": p, "chosen": c, "rejected": "no", "margin": m} for p, c, m in pairs]
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    store = Store(str(folder / "store"))
    data = DataConfig(prompts="unused", evaluation_prompts="unused", preferences=str(path))
    found = load_preferences.body(draft(store), NOTHING, no_held_out(store), NOTHING, data)
    firsts = list(dict.fromkeys(pairs))  # -0.0 equals 0.0, and the first is kept
    assert [(each["messages"][0]["content"], each["chosen"], repr(each["margin"])) for each in stored_rows(found)] == [
        (p, c, repr(m)) for p, c, m in firsts
    ]
    assert found.stats["left_out"] == ({"duplicate": len(pairs) - len(firsts)} if len(pairs) > len(firsts) else {})


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_added_rows_make_the_part_that_their_own_json_names(local, monkeypatch, at_once):
    for module in (added_rows, parquet):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    records = [(f"a.jsonl line {n}", Record(row(n)["messages"], f"é{n}" if n % 2 else None)) for n in range(9)]
    rows = list(collect_prompts(records, Tally("a.jsonl", 0.0)))
    table = ADDED_PROMPTS.lay_out(iter(rows))
    assert table.to_pylist() == rows
    assert ADDED_PROMPTS.append(local, table.slice(0, 4)) == 4
    assert ADDED_PROMPTS.append(local, table) == 5
    (first, second) = ADDED_PROMPTS.table(local).parts()
    for number, part, own in ((0, first, rows[:4]), (1, second, rows[4:])):
        name = sha256_of("".join(map(canonical_json, own)).encode())[:32]
        assert part.uri.endswith(f"/{number:08d}-{name}")
        assert list(stored_rows(part)) == own
