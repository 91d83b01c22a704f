"""Before and after, lineage, two runs side by side."""

import re

import pytest

from tasks.browser.evaluation import Asked, before_after, choices, histogram, read_asked
from tasks.browser.side_by_side import ORDERS, different_settings, shared_prompts
from tasks.config.errors import ConfigurationError


def test_the_reference_comes_first(browsed):
    assert choices(browsed.index()) == (["sft", "aligned"], ["gold", "reward_model"])
    assert read_asked(browsed.index(), "", "", "") == Asked("sft", "aligned", "gold")


def test_gains_and_losses_are_in_order(browsed):
    asked = Asked("sft", "aligned", "gold")
    gains = [row["change"] for row in before_after(browsed.index(), asked, "gain", 0).rows]
    losses = [row["change"] for row in before_after(browsed.index(), asked, "loss", 0).rows]
    assert gains == sorted(losses, reverse=True)
    row = before_after(browsed.index(), asked, "gain", 0).rows[0]
    mean = {name: sum(s["reward"] for s in samples) / 4 for name, samples in row["samples"].items()}
    assert row["change"] == pytest.approx(mean["aligned"] - mean["sft"])
    assert "Held-out question" in row["messages"][0]["content"]


def test_every_reward_is_in_the_histogram(browsed):
    spread = histogram(browsed.index(), Asked("sft", "aligned", "gold"))
    assert {name: sum(counts) for name, counts in spread["counts"].items()} == {"sft": 12, "aligned": 12}


def test_the_page_of_an_evaluation(browsed):
    page = browsed.get("/evaluation", reward="reward_model", order="loss").text
    assert "win rate over sft by gold" in page
    assert page.count("<article") == 3
    assert browsed.get("/evaluation", reward="other").status_code == 404
    with pytest.raises(ConfigurationError, match="has no 'x'"):
        read_asked(browsed.index(), "x", "", "")


def test_a_lineage_names_every_stage(browsed):
    page = browsed.get("/lineage").text
    for stage in ("load_prompts", "train_sft", "sample_completions", "build_pairs", "evaluate_policy"):
        assert stage in page


def test_two_runs_side_by_side(browsed):
    left, right = browsed.index(0), browsed.index(1)
    assert ("pairs.tau", 1.0, 0.5) in different_settings(left.files, right.files)
    for order in ORDERS:
        found = shared_prompts(left, right, order, 0)
        assert (len(found.rows), found.both, found.only_left, found.only_right) == (8, 8, 4, 0)
    page = browsed.client.get("/compare", params={"run": [run.id for run in browsed.runs]}).text
    assert "8 prompts are in both runs, 4 in the first alone, 0 in the second alone" in page
    prompt = re.search(r"/compare/(\w{64})", page)[1]
    both = browsed.client.get(f"/compare/{prompt}", params={"run": [run.id for run in browsed.runs]}).text
    assert (both.count("data-samples"), both.count("data-id=")) == (2, 4 + 6)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_two_runs_must_be_chosen(browsed, number):
    answer = browsed.client.get("/compare", params={"run": [browsed.runs[0].id] * number})
    assert answer.status_code == 404
    assert f"{number} runs are chosen" in answer.text
