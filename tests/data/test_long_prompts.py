"""Prompts with more text than one file or one Arrow array holds."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loaded import draft

from tasks.data.loading import commit_rows
from tasks.data.prompt_table import PromptTable
from tasks.store.parquet import write_conversations
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest


def test_conversations_are_cut_into_files_by_rows_and_by_text(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.store.parquet.ROWS_PER_FILE", 3)
    monkeypatch.setattr("tasks.store.parquet.TEXT_PER_FILE", 10)
    rows = prompts_of_lengths(4, 6, 1, 1, 1, 1, 12, 2)  # 4 + 6 fill one; three ones the next; 12 is too long for any
    written = write_conversations(rows, "prompts", tmp_path)
    read = [pq.read_table(path) for path in written.files.values()]
    assert [[len(row["messages"][0]["content"]) for row in table.to_pylist()] for table in read] == [
        [4, 6],
        [1, 1, 1],
        [1],
        [12],
        [2],
    ]
    assert written.rows == 8
    whole = pa.Table.from_pylist(rows, SCHEMAS["prompts"]).drop_columns("source")
    assert written.digest == format_digest(rows_digest(whole))


def prompts_of_lengths(*lengths):
    """Return rows whose conversations have so many characters."""
    return [
        {"prompt_id": f"p{i}", "messages": [{"role": "user", "content": "x" * n}], "source": "test"}
        for i, n in enumerate(lengths)
    ]


@pytest.mark.slow  # more than 2 GB of text
def test_more_prompt_text_than_an_arrow_array_holds(local):
    long = "y" * 2**22
    rows = [row | {"messages": [{"role": "user", "content": long}]} for row in prompts_of_lengths(*range(520))]
    rows[-1]["messages"] = [{"role": "user", "content": "the last"}]
    artifact = commit_rows(draft(local, "prompts"), "prompts", rows, {})
    table = PromptTable(artifact)
    assert sum(len(row["messages"][0]["content"]) for row in rows) > 2**31
    assert table["p0"] == table["p518"] == [{"role": "user", "content": long}]
    assert table["p519"] == [{"role": "user", "content": "the last"}]
