"""Tokens of examples are Python numbers for a few rows at a time; what is trained on is as it was when all were."""

import gc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.errors import ConfigurationError
from tasks.lm import context
from tasks.lm.context import ShortExamples, are_short, in_pieces
from tasks.lm.tokens import load_tokenizer
from tasks.lm.turns import PLAIN_TEMPLATE
from tasks.reward_model import SIDES, encode_preferences, short_pairs
from tasks.sft import encode_demonstrations
from tasks.store.schemas import SCHEMAS
from tasks.training.trained_model import write_tables

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer(test_data):
    found = load_tokenizer(test_data / "stories260k")
    found.chat_template = PLAIN_TEMPLATE
    return found


def demonstrations(number):
    rows = [
        {
            "prompt_id": f"p{n}",
            "messages": [{"role": "user", "content": f"Tell me of {'a ' * (n % 7)}cat."}],
            "completion": f"The cat sat {n} times. " * (1 + n % 5),
        }
        for n in range(number)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["demonstrations"])


def preferences(number):
    table = demonstrations(number).rename_columns(["prompt_id", "messages", "chosen"])
    table = table.append_column("rejected", pa.array(["No. " * (n % 6 + 1) for n in range(number)]))
    return table.append_column("margin", pa.array([float(n) for n in range(number)])).cast(SCHEMAS["preferences"])


def short(encode, table, sequences, longest):
    """Return the examples in pieces, and all at once."""
    pieces = ShortExamples((encode(rows) for rows in in_pieces(table, "tokenizing")), sequences, longest)
    whole = encode(table)
    return pieces, whole.filter(pa.array(are_short(whole, sequences, longest)))


@pytest.mark.parametrize("piece", [1, 4, 1024])
def test_demonstrations_are_those_of_all_rows_at_once(tmp_path, tokenizer, monkeypatch, piece):
    monkeypatch.setattr(context, "PIECE", piece)
    examples, whole = short(
        lambda rows: encode_demonstrations(tokenizer, rows), demonstrations(30), [["input_ids"]], 60
    )
    write_tables(tmp_path / "examples.parquet", examples)
    found = pq.read_table(tmp_path / "examples.parquet")
    assert found.equals(whole)
    assert found.schema.field("input_ids").type == pa.list_(pa.int64())
    assert (examples.kept, examples.too_long) == (whole.num_rows, 30 - whole.num_rows)
    assert 0 < whole.num_rows < 30


@pytest.mark.parametrize("piece", [1, 4, 1024])
def test_preferences_are_those_of_all_rows_at_once(tmp_path, tokenizer, monkeypatch, piece):
    monkeypatch.setattr(context, "PIECE", piece)
    examples, whole = short(lambda rows: encode_preferences(tokenizer, rows, True), preferences(30), SIDES, 60)
    write_tables(tmp_path / "examples.parquet", examples)
    assert pq.read_table(tmp_path / "examples.parquet").equals(whole)
    held_out = short_pairs(tokenizer, preferences(30), 60)
    assert held_out["margin"].to_pylist() == whole["margin"].to_pylist()
    assert held_out.schema == SCHEMAS["preferences"]
    assert short_pairs(tokenizer, preferences(0), 60).num_rows == 0


def test_the_numbers_of_one_piece_are_held(tokenizer, monkeypatch):
    """Lists of numbers count, which a table does not have."""
    monkeypatch.setattr(context, "PIECE", 4)
    examples = ShortExamples(
        (encode_demonstrations(tokenizer, rows) for rows in in_pieces(demonstrations(200), "tokenizing")),
        [["input_ids"]],
        1000,
    )

    def lists():
        gc.collect()
        return sum(type(each) is list and len(each) > 9 and type(each[0]) is int for each in gc.get_objects())

    before, most = lists(), 0
    for number, _ in enumerate(examples):
        if number % 10 == 0:
            most = max(most, lists() - before)
    assert number == 49
    assert most <= 8


@given(st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=5), st.integers(1, 9))
def test_pieces_count_as_the_whole_does(lengths, longest):
    tables = [pa.table({"ids": pa.array([[0] * n for n in own], pa.list_(pa.int64()))}) for own in lengths]
    every = [n for own in lengths for n in own]
    examples, fits = ShortExamples(tables, [["ids"]], longest), [n for n in every if n <= longest]
    if not fits:
        with pytest.raises(ConfigurationError, match=f"all {len(every)} examples are longer than {longest} tokens"):
            list(examples)
        return
    assert [len(ids) for table in examples for ids in table["ids"].to_pylist()] == fits
    assert (examples.kept, examples.too_long) == (len(fits), len(every) - len(fits))
