"""Pairs of the policy's own completions, labelled with a known reward."""

import pyarrow as pa
import pytest

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Function
from tasks.data.prompt_table import PromptTable
from tasks.preferences import label_pairs, labelled_rows
from tasks.rewards.functions import find_gold
from tasks.store.artifacts import Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS

ASKED = {name: [{"role": "user", "content": f"{name}?"}] for name in "pq"}


def test_neighbours_are_paired_by_hand():
    assert label_pairs(["a", "b", "c", "d", "e"], [1.0, 3.0, 2.0, 2.0, 9.0]) == [("b", "a", 2.0)], "a tie, a lone one"
    assert label_pairs(["a", "b"], [0.5, 0.0]) == [("a", "b", 0.5)]


def drawn(*texts: tuple[str, int, str]) -> pa.Table:
    return pa.table(dict(zip(("prompt_id", "completion_id", "completion"), zip(*texts, strict=True), strict=True)))


@pytest.fixture
def prompts(tmp_path) -> PromptTable:
    """Return two prompts, each with its own name as metadata and as reference."""
    rows = [
        {
            "prompt_id": name,
            "messages": messages,
            "source": "",
            "metadata": f'{{"id":"{name}"}}',
            "reference_completion": name,
        }
        for name, messages in ASKED.items()
    ]
    files = {"rows.parquet": table_bytes(pa.Table.from_pylist(rows, SCHEMAS["prompts"]), "prompts")}
    draft = Draft(Store(str(tmp_path / "store")), Provenance(stage="load_prompts", version=1, key="0" * 64))
    return PromptTable(draft.commit("prompts", files, "d", rows=2))


@pytest.fixture
def gold(tmp_path, monkeypatch):
    (tmp_path / "number.py").write_text("def reward(messages, text):\n    return float(text)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return find_gold(Function(function="number:reward"))


def test_each_prompt_is_labelled_by_itself_in_the_order_of_its_completions(gold, prompts):
    table = drawn(("q", 1, "4"), ("p", 0, "1"), ("q", 0, "7"), ("p", 1, "2"), ("p", 2, "9"))
    assert list(labelled_rows(table, prompts, gold)) == [
        {"prompt_id": "p", "messages": ASKED["p"], "chosen": "2", "rejected": "1", "margin": 1.0},
        {"prompt_id": "q", "messages": ASKED["q"], "chosen": "7", "rejected": "4", "margin": 3.0},
    ]


def test_a_reward_is_given_what_is_known_of_the_prompt(prompts, tmp_path, monkeypatch):
    (tmp_path / "named.py").write_text(
        "def reward(messages, text, metadata, reference_completion):\n"
        "    return float(text == metadata['id'] == reference_completion)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = drawn(("p", 0, "q"), ("p", 1, "p"), ("q", 0, "q"), ("q", 1, "p"))
    found = labelled_rows(rows, prompts, find_gold(Function(function="named:reward")))
    assert [(row["prompt_id"], row["chosen"]) for row in found] == [("p", "p"), ("q", "q")]


def test_a_reward_that_is_no_number_labels_nothing(gold, prompts):
    with pytest.raises(ConfigurationError, match="1 of 2 completions no finite reward, first 'nan'"):
        list(labelled_rows(drawn(("p", 0, "1"), ("p", 1, "nan")), prompts, gold))
