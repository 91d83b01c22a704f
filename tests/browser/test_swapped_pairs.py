"""Pages of a run whose pairs have swapped sides, whose prompts were filtered, and that kept so many in all."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from browsed_store import Size, write_run
from starlette.testclient import TestClient

from tasks.browser.app import create_app
from tasks.browser.prompts import show_prompt
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.store.slices import read_slices, read_sorted

CONFIG = PairsConfig(strategy="shuffled", tau=0.5, max_pairs=20, rip={"most_gap": 3.0})


class Swapped(NamedTuple):
    """A store with one run, and what looks at it."""

    store: Store
    made: dict[str, Artifact]
    index: Any
    get: Callable[[str], Any]


@pytest.fixture(scope="module")
def swapped(tmp_path_factory) -> Swapped:
    store = Store(str(tmp_path_factory.mktemp("swapped") / "store"))
    run, made = write_run(store, Size(30, k=6), pairs=CONFIG)
    client = TestClient(create_app(store), base_url="http://127.0.0.1")
    opened = client.app.state.shelf.open(run.id)  # type: ignore[attr-defined]
    assert opened.is_ready(60)
    return Swapped(store, made, opened.index, lambda address: client.get(f"/runs/{run.id}{address}"))


def test_the_run_says_what_was_configured(swapped):
    page = " ".join(swapped.get("").text.split())
    assert "strategy <code>shuffled</code>, tau 0.5, eta 0.85, at most 20 in all, prompts filtered" in page
    assert "before the run's limit of 20 in all" in page
    assert "without the prompts that the run's filters leave out" in page


def test_the_sliders_count_what_the_filter_leaves(swapped):
    stats = swapped.made["pairs"].stats
    assert stats["left_out_prompts"]["reward_gap"] > 5
    kept = swapped.index.gaps.count(CONFIG.tau, CONFIG.eta)
    assert kept.pairs == stats["pairs_before_max_pairs"] > 20
    assert kept.prompts < 30 - stats["left_out_prompts"]["reward_gap"] + 1


def test_pairs_are_shown_and_exported_with_the_side_that_was_chosen(swapped):
    pairs = read_table(swapped.made["pairs"]).to_pylist()
    assert len(pairs) == 20
    assert {pair["reward_gap"] > 0 for pair in pairs} == {True, False}
    assert all((pair["preference_prob"] > 0.5) == (pair["reward_gap"] > 0) for pair in pairs)
    rows = read_sorted(read_slices(swapped.store, swapped.made["completions"])).to_pylist()
    texts = {(row["prompt_id"], row["completion_id"]): row["completion"] for row in rows}
    sides = [(texts[p["prompt_id"], p["chosen_id"]], texts[p["prompt_id"], p["rejected_id"]]) for p in pairs]
    lines = map(json.loads, swapped.get("/export.jsonl").text.splitlines())
    assert Counter((line["chosen"][0]["content"], line["rejected"][0]["content"]) for line in lines) == Counter(sides)
    lowest = min(pairs, key=lambda pair: pair["reward_gap"])
    shown = show_prompt(swapped.index, lowest["prompt_id"])
    assert shown is not None
    assert swapped.get(f"/prompts/{lowest['prompt_id']}").status_code == 200
