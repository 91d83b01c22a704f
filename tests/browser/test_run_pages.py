"""Pages of runs and prompts: what is listed, filtered, counted, compared and exported."""

import json
import re

import numpy as np
import pytest
from datasets import Dataset
from trl.data_utils import is_conversational

from tasks.browser.filters import FLAGS, ORDERS, Filters
from tasks.browser.prompts import list_prompts, show_prompt
from tasks.rewards.candidates import gather
from tasks.selection.threshold import select_pairs
from tasks.store.parquet import read_table
from tasks.store.slices import read_slices, read_sorted


def rows_of(browsed, name, number=0):
    return read_sorted(read_slices(browsed.store, browsed.made[number][name]))


def figures(browsed, **filters):
    return list_prompts(browsed.index(), Filters(**filters), 0)


def ids(browsed, **filters):
    return [row["prompt_id"] for row in figures(browsed, **filters).rows]


# The first page and a run's


def test_runs_are_listed_newest_first(browsed):
    page = browsed.client.get("/").text
    first, second = (page.index(f"/runs/{run.id}") for run in browsed.runs)
    assert second < first
    assert page.count("finished") >= 2


def test_a_run_shows_its_figures_and_prompts(browsed):
    page = browsed.get("").text
    assert f"<dd>{browsed.made[0]['pairs'].rows}</dd>" in page
    assert len(set(re.findall(r"/prompts/([0-9a-f]{64})", page))) == 12
    assert "Question 3: what does the fox say?" in page


def test_figures_of_a_prompt_are_those_of_its_completions(browsed):
    rewards, drawn = rows_of(browsed, "rewards"), rows_of(browsed, "completions")
    pairs = read_table(browsed.made[0]["pairs"])["prompt_id"].to_pylist()
    for row in figures(browsed).rows:
        own = np.array([r["reward"] for r in rewards.to_pylist() if r["prompt_id"] == row["prompt_id"]])
        tokens = [r["num_tokens"] for r in drawn.to_pylist() if r["prompt_id"] == row["prompt_id"]]
        assert row["reward"] == pytest.approx(own.mean())
        assert row["gap"] == pytest.approx(own.max() - own.min())
        assert (row["k"], row["length"], row["pairs"]) == (4, np.mean(tokens), pairs.count(row["prompt_id"]))


# Filters


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_leaves_nobody_out(browsed, order):
    assert sorted(ids(browsed, order=order)) == sorted(ids(browsed))


def test_orders_and_ranges_agree(browsed):
    gaps = [row["gap"] for row in figures(browsed, order="widest gap").rows]
    assert gaps == sorted(gaps, reverse=True)
    assert figures(browsed, gap_from=str(gaps[4])).number == 5
    assert figures(browsed, gap_from=str(gaps[4]), gap_to=str(gaps[2])).number == 3


def test_text_is_found_in_prompts_in_any_case_and_in_completions(browsed):
    assert figures(browsed, text="QUESTION 3:").number == 1
    drawn = rows_of(browsed, "completions").to_pylist()
    expected = {row["prompt_id"] for row in drawn if "bright" in row["completion"]}
    assert set(ids(browsed, text="bright", within="completions")) == expected
    assert figures(browsed, text="%").number == 0, "no character is a pattern"


def test_sources_and_monitors(browsed):
    assert figures(browsed, source="file-0.jsonl").number == 6
    cut = {row["prompt_id"] for row in rows_of(browsed, "completions").to_pylist() if row["finish_reason"] == "length"}
    assert set(ids(browsed, flag="truncated")) == cut
    for flag in FLAGS:
        found = figures(browsed, flag=flag)
        assert all(flag in row["flags"] for row in found.rows)
        assert found.number == sum(flag in row["flags"] for row in figures(browsed).rows)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"gap_from": "wide"}, "must be a number"),
        ({"reward_to": "nan"}, "must be a number"),
        ({"flag": "'; DROP TABLE"}, "monitor"),
        ({"order": "random()"}, "is not one of"),
        ({"start": "x"}, "a value in the address"),
        ({"start": "-1"}, "out of bounds"),
    ],
)
def test_what_is_not_understood_is_told(browsed, query, message):
    answer = browsed.get("", **query)
    assert answer.status_code == 404
    assert message in answer.text


def test_a_place_in_the_list_that_no_list_has(browsed):
    address = f"/prompts/{figures(browsed).rows[0]['prompt_id']}"
    assert browsed.get(address, at=10**9).status_code == 200
    answer = browsed.get(address, at=10**40)
    assert answer.status_code == 404
    assert "out of bounds" in answer.text


def test_pages_of_a_list(browsed):
    assert ">11 to 12 of 12<" in browsed.get("", start=10).text
    assert browsed.get("", start=10**9).status_code == 200


# Sliders


@pytest.mark.parametrize(("tau", "eta"), [(1.0, 0.85), (0.3, 0.6), (2.0, 0.95), (1.0, 0.5)])
def test_sliders_count_as_the_selection_does(browsed, tau, eta):
    drawn, rewards = rows_of(browsed, "completions"), rows_of(browsed, "rewards")
    candidates = gather(drawn, rewards)
    kept = select_pairs(np.where(candidates.truncated, np.nan, candidates.rewards), tau, eta)
    page = browsed.get("/threshold", tau=tau, eta=eta).text
    assert f'id="pairs-kept">{kept.row.size:,}<' in page


def test_the_run_s_own_threshold_counts_its_own_pairs(browsed):
    for number, made in enumerate(browsed.made):
        index = browsed.index(number)
        config = index.files.pairs_config()
        assert index.gaps.count(config.tau, config.eta).pairs == made["pairs"].rows


@pytest.mark.parametrize("query", [{"tau": "0", "eta": "0.8"}, {"tau": "1", "eta": "2"}, {"tau": "", "eta": ""}])
def test_a_threshold_out_of_bounds_is_told(browsed, query):
    answer = browsed.get("/threshold", **query)
    assert answer.status_code == 404
    assert "must be" in answer.text


# One prompt


def test_a_prompt_has_its_completions_in_order_of_reward(browsed):
    prompt = show_prompt(browsed.index(), ids(browsed)[0])
    rewards = [row["reward"] for row in prompt["completions"]]
    assert rewards == sorted(rewards, reverse=True)
    assert len(prompt["kept"]) == prompt["pairs"]


def test_the_pair_that_is_asked_for_is_compared(browsed):
    asked = ids(browsed, order="most pairs")[0]
    kept = show_prompt(browsed.index(), asked)["kept"]
    assert len(kept) > 1
    for pair in kept:
        name = f"{pair['chosen_id']}-{pair['rejected_id']}"
        assert f'data-pair="{name}"' in browsed.get(f"/prompts/{asked}", pair=name).text


def test_neighbours_follow_the_filters(browsed):
    found = ids(browsed, order="widest gap", source="file-0.jsonl")
    page = browsed.get(f"/prompts/{found[2]}", order="widest gap", source="file-0.jsonl", at=2).text
    before, after = (
        re.search(r"prompts/(\w{64})[^\"]*\">Previous", page),
        re.search(r"prompts/(\w{64})[^\"]*\">Next", page),
    )
    assert (before[1], after[1]) == (found[1], found[3])


def test_a_prompt_that_is_not_there(browsed):
    assert browsed.get("/prompts/abc").status_code == 404


# Export


def test_an_export_is_what_trl_reads(browsed):
    answer = browsed.get("/export.jsonl", source="file-1.jsonl")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    chosen = set(ids(browsed, source="file-1.jsonl"))
    pairs = [row for row in read_table(browsed.made[0]["pairs"]).to_pylist() if row["prompt_id"] in chosen]
    texts = {(r["prompt_id"], r["completion_id"]): r["completion"] for r in rows_of(browsed, "completions").to_pylist()}
    expected = sorted(
        (texts[pair["prompt_id"], pair["chosen_id"]], texts[pair["prompt_id"], pair["rejected_id"]]) for pair in pairs
    )
    assert sorted((row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows) == expected
    assert "attachment" in answer.headers["content-disposition"]
    loaded = Dataset.from_list(rows)
    assert loaded.column_names == ["prompt", "chosen", "rejected"]
    assert is_conversational(loaded[0])
    assert {message["role"] for row in rows for message in row["chosen"]} == {"assistant"}
