"""A budget is never crossed: the worst case of each request is reserved before it is sent."""

import pytest
from judge_server import DROP, Reply, completion, judging

from tasks.config.errors import ConfigurationError
from tasks.judges import endpoint
from tasks.judges.budget import OVERHEAD, PER_MESSAGE, Tokens, cost_of, most_tokens
from tasks.judges.judge import Judge
from tasks.judges.questions import Judged
from tasks.store.folders import Store

ASK = [{"role": "user", "content": "Hi"}]
PRICES = {"price_per_million_input": 2.0, "price_per_million_output": 10.0}
SHORT = {"template": "{question}{answer}", "max_answer_tokens": 50}
MOST = 256 + 16 + 4 + 50
"""Tokens that a request may take: of the template, of the message, its bytes, of the answer."""


def rows(number: int) -> list[Judged]:
    return [Judged(ASK, f"{n:02d}") for n in range(number)]


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    return Store(str(tmp_path / "store"))


def test_the_most_that_a_request_takes_and_what_it_costs():
    with judging(lambda request, number: "") as server:
        config = server.config(**PRICES)
    messages = [{"role": "system", "content": "é"}, {"role": "user", "content": "abc"}]
    assert most_tokens(config, messages) == Tokens(OVERHEAD + 2 * PER_MESSAGE + 2 + 3, 100)
    assert cost_of(config, Tokens(1000, 100)) == pytest.approx(0.002 + 0.001)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_it_stops_before_the_budget_is_crossed_and_goes_on_with_a_larger_one(store, concurrency):
    """40 tokens an answer. A fifth one would be sent with 160 spent: 160 + MOST > 450."""
    with judging(lambda request, number: completion("[[5]]", prompt_tokens=30)) as server:
        own = {**SHORT, "concurrency": concurrency}
        judge = Judge(server.config(budget_tokens=124 + MOST, **own), store)
        with pytest.raises(ConfigurationError, match=r"judge.budget_tokens = 450: 160 tokens are spent, .* take 326"):
            judge.rewards(rows(9))
        assert len(server.requests) == 4
        assert sum(judge.budget.spent) == 160
        # What is there costs nothing: the four of before fit in a budget for one.
        assert Judge(server.config(budget_tokens=1, **own), store).rewards(rows(4)).tolist() == [5] * 4
        again = Judge(server.config(budget_tokens=10_000, **own), store)
        again.rewards(rows(9))
        assert (again.stats.asked, again.stats.cached) == (5, 4)


def test_money(store):
    """0.00012 an answer of 10 and 10 tokens; a request may take (276 * 2 + 50 * 10) / 1e6 = 0.001052."""
    with judging(lambda request, number: completion("[[5]]", prompt_tokens=10)) as server:
        judge = Judge(server.config(budget_cost=0.0013, **PRICES, **SHORT), store)
        with pytest.raises(ConfigurationError, match=r"judge.budget_cost = 0.0013: 60 tokens \(0.00036\) are spent"):
            judge.rewards(rows(9))
        assert judge.figures()["cost"] == pytest.approx(0.00036)
        assert len(server.requests) == 3


def test_what_the_endpoint_does_not_count_is_taken_at_its_most(store):
    body = '{"choices": [{"message": {"content": "[[5]]"}}], "usage": null}'
    with judging(lambda request, number: Reply(body)) as server:
        judge = Judge(server.config(**SHORT), store)
        judge.rewards(rows(2))
        assert sum(judge.budget.spent) == 2 * MOST


def test_what_was_lost_on_its_way_is_taken_at_its_most_and_what_was_refused_is_free(store):
    replies = [DROP, Reply("{", 200), Reply("{}", 500), Reply("{}", 429), completion("[[5]]")]
    with judging(lambda request, number: replies[number]) as server:
        judge = Judge(server.config(**SHORT), store)
        judge.rewards(rows(1))
        assert sum(judge.budget.spent) == 2 * MOST + 110


def test_second_times_of_asking_count(store):
    with judging(lambda request, number: completion("no", prompt_tokens=90)) as server:
        judge = Judge(server.config(max_unreadable=1, **SHORT), store)
        judge.rewards(rows(1))
        assert sum(judge.budget.spent) == 200


def test_no_request_is_sent_that_a_budget_does_not_hold(store):
    with judging(lambda request, number: "[[5]]") as server:
        with pytest.raises(ConfigurationError, match="0 tokens are spent"):
            Judge(server.config(budget_tokens=MOST - 1, **SHORT), store).rewards(rows(1))
        assert not server.requests
        Judge(server.config(budget_tokens=MOST, **SHORT), store).rewards(rows(1))
