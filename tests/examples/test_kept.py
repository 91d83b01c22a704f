"""Which constraints two policies keep, by hand."""

import json

import pyarrow as pa
import pytest

from tasks.examples.kept import ALL, kept_rows, read_kept
from tasks.rewards.constraints import constraints_kept
from tasks.store.artifacts import Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS

CONSTRAINTS = {"p": {"words": [2, 3], "lower_case": True}, "q": {"words": [2, 3]}}
SAID = {
    ("sft", "p"): ["One two.", "one"],  # words 1 0, lower case 0 1
    ("sft", "q"): ["One.", "One."],
    ("aligned", "p"): ["one two", "one two."],
    ("aligned", "q"): ["One two.", "One."],
}


@pytest.fixture
def found(tmp_path):
    store = Store(str(tmp_path))
    asked = [
        {"prompt_id": id_, "messages": [], "source": "", "metadata": json.dumps({"metadata": json.dumps(own)})}
        for id_, own in CONSTRAINTS.items()
    ]
    prompts = commit(store, "prompts", "rows.parquet", asked)
    rows = [
        {"policy": policy, "prompt_id": id_, "completion_id": number, "completion": text, "reward_name": name}
        | {"reward": constraints_kept([], text, {"metadata": json.dumps(CONSTRAINTS[id_])})}
        for (policy, id_), texts in SAID.items()
        for number, text in enumerate(texts)
        for name in ("gold", "reward_model")
    ]
    return read_kept(commit(store, "evaluation", "samples.parquet", rows), prompts)


def commit(store, kind, name, rows):
    files = {name: table_bytes(pa.Table.from_pylist(rows, SCHEMAS[kind]), kind)}
    return Draft(store, Provenance(stage=kind, version=1, key="0" * 64)).commit(kind, files, "d", rows=len(rows))


def test_each_completion_counts_once(found):
    assert {name: shares.tolist() for name, shares in found.items()} == {
        ("words", "sft"): [0.5, 0],
        ("words", "aligned"): [1, 0.5],
        ("lower_case", "sft"): [0.5],
        ("lower_case", "aligned"): [1],
        (ALL, "sft"): [0.5, 0],
        (ALL, "aligned"): [1, 0.5],
    }


def test_rows_have_rates_and_the_gain_with_its_interval(found):
    assert kept_rows(found, "sft", "aligned", samples=200, seed=0) == [
        ("lower_case", "1", "0.500", "1.000", "+0.500  [+0.500, +0.500]"),
        ("words", "2", "0.250", "0.750", "+0.500  [+0.500, +0.500]"),
        (ALL, "2", "0.250", "0.750", "+0.500  [+0.500, +0.500]"),
    ]
