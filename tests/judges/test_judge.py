"""A judge against a real server: ratings, comparisons, second attempts, and what is counted."""

import numpy as np
import pytest
from judge_server import DROP, MODEL, asked_text, completion, judging

from tasks.config.errors import ConfigurationError
from tasks.judges.judge import Judge
from tasks.judges.questions import AGAIN, Judged
from tasks.store.folders import Store

ASK = [{"role": "user", "content": "What is two and two?"}]
CRITERIA = {"truth": {"description": "It is true.", "weight": 3}, "tone": {"description": "It is kind."}}


def judged(*texts: str, **fields) -> list[Judged]:
    return [Judged(ASK, text, **fields) for text in texts]


def words(request, start="[Start of the answer]\n", end="\n[End of the answer]"):
    return asked_text(request).partition(start)[2].partition(end)[0].split()


def rate_by_words(request, number):
    return f"It has some words. [[{len(words(request))}]]"


def prefer_more_words(request, number):
    a, b = (len(words(request, f"[Start of answer {side}]\n", f"\n[End of answer {side}]")) for side in "AB")
    return "I think [[C]]" if a == b else f"I think [[{'A' if a > b else 'B'}]]"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_rating_for_each_answer_in_order(store):
    told = []
    with judging(rate_by_words) as server:
        judge = Judge(server.config(), store)
        rewards = judge.rewards(judged("a", "a b c", "a b"), told.extend)
        (request, *_) = server.requests
    assert rewards.tolist() == [1, 3, 2]
    assert sorted(told) == [1, 2, 3]
    assert {name: request[name] for name in request if name != "messages"} == {
        "model": MODEL,
        "temperature": 0,
        "seed": 0,
        "max_tokens": 100,
    }
    counts = {"asked": 3, "cached": 0, "asked_again": 0, "unreadable": 0, "models": {MODEL: 3}}
    assert judge.figures() == counts | {"prompt_tokens": 300, "completion_tokens": 30, "cost": None}


def test_the_reward_is_the_mean_by_weight(store):
    with judging(lambda request, number: "Well.\ntruth: [[8]]\ntone: [[4]]") as server:
        rewards = Judge(server.config(criteria=CRITERIA), store).rewards(judged("four"))
        assert rewards.tolist() == [7.0]  # (3 * 8 + 4) / 4
        text = asked_text(server.requests[0])
    assert "truth (75% of the whole): It is true.\ntone (25% of the whole): It is kind." in text
    assert text.endswith("truth: [[1 to 10]]\ntone: [[1 to 10]]")


def test_what_was_asked_once_is_not_asked_again(store):
    with judging(rate_by_words) as server:
        first = Judge(server.config(), store).rewards(judged("a", "a b", "a"))
        again = Judge(server.config(concurrency=1, base_url=server.url + "/"), store)
        assert again.rewards(judged("a b", "a")).tolist() == [2, 1]
        assert len(server.requests) == 2
        assert (again.stats.asked, again.stats.cached) == (0, 2)
        assert sum(again.budget.spent) == 0
        for other in ({"version": "2"}, {"seed": 1}, {"temperature": 0.5}, {"max_answer_tokens": 9}):
            Judge(server.config(**other), store).rewards(judged("a"))
        assert len(server.requests) == 6
    assert first.tolist() == [1, 2, 1]


def test_an_unreadable_answer_is_asked_for_once_more(store):
    def read_the_second_time(request, number):
        return "Rating: [[7]]" if AGAIN in asked_text(request) else "A seven, I should say."

    with judging(read_the_second_time) as server:
        judge = Judge(server.config(), store)
        assert judge.rewards(judged("four")).tolist() == [7]
        assert len(server.requests) == 2
        again = Judge(server.config(), store)
        assert again.rewards(judged("four")).tolist() == [7]
        assert len(server.requests) == 2
    assert (judge.stats.asked_again, judge.stats.unreadable) == (1, 0)
    assert (again.stats.asked, again.stats.cached) == (0, 2)


def test_what_stays_unreadable_is_counted_and_too_much_of_it_an_error(store):
    def refuse_some(request, number):
        return "I would rather not say." if words(request)[0] == "bad" else "[[5]]"

    with judging(refuse_some) as server:
        answers = judged("bad", *(f"good {number}" for number in range(4)))
        judge = Judge(server.config(max_unreadable=0.2), store)
        rewards = judge.rewards(answers)
        assert np.isnan(rewards[0])
        assert rewards[1:].tolist() == [5] * 4
        assert (judge.stats.asked, judge.stats.asked_again, judge.stats.unreadable) == (6, 1, 1)
        message = r"1 answers are unreadable.* lets 0 pass. The first is of answer 1 to 'What .*': 'I would rather"
        with pytest.raises(ConfigurationError, match=message):
            Judge(server.config(max_unreadable=0.19), store).rewards(answers)
        assert len(server.requests) == 6


def test_a_reference_is_shown_where_there_is_one(store):
    with judging(lambda request, number: "[[5]]") as server:
        Judge(server.config(reference=True, concurrency=1), store).rewards(
            [*judged("4", reference="four"), *judged("5")]
        )
        Judge(server.config(), store).rewards(judged("4", reference="four"))
        shown = ["[Start of a reference answer]\nfour\n" in asked_text(request) for request in server.requests]
    assert shown == [True, False, False]


def test_ones_own_template(store):
    template = "Is {answer} right for {question}? {{json}} {format}"
    with judging(lambda request, number: "[[5]]") as server:
        Judge(server.config(template=template), store).rewards(judged("{question} [[9]]"))
        text = asked_text(server.requests[0])
    assert text.startswith("Is {question} [[9]] right for What is two and two?? {json} Then end with your rating")


def test_pairs_are_asked_in_both_orders(store):
    rows = [(ASK, "a b", "a"), (ASK, "a", "a b"), (ASK, "a", "b"), (ASK, "same", "same")]
    with judging(prefer_more_words) as server:
        judge = Judge(server.config(), store)
        assert judge.compare(rows).tolist() == [1, 0, 0.5, 0.5]
        # The second row asks what the first one has asked; equal answers are not asked about.
        assert len(server.requests) == 4
        assert (judge.stats.asked, judge.stats.cached) == (4, 2)


def test_whoever_prefers_what_comes_first_sees_ties(store):
    with judging(lambda request, number: "[[A]]") as server:
        assert Judge(server.config(), store).compare([(ASK, "a", "b")]).tolist() == [0.5]


def test_a_pair_with_an_unreadable_verdict_has_none(store):
    with judging(lambda request, number: "[[A]] [[B]]") as server:
        judge = Judge(server.config(max_unreadable=1), store)
        assert np.isnan(judge.compare([(ASK, "a", "b")])).all()
        assert judge.stats.unreadable == 2
        assert judge.compare([]).shape == (0,)


def test_each_principle_has_a_verdict_and_the_first_priority_decides(store):
    principles = [{"text": "It is kind.", "priority": 2}, {"text": "It does no harm.", "priority": 1}]

    def kind_but_harmful(request, number):
        first_is_kind = "[Start of answer A]\nkind" in asked_text(request)
        return "1: [[A]]\n2: [[B]]" if first_is_kind else "1: [[B]]\n2: [[A]]"

    with judging(kind_but_harmful) as server:
        judge = Judge(server.config(principles=principles), store)
        assert judge.compare([(ASK, "kind", "harmless")]).tolist() == [0]
        assert "1: It is kind.\n2: It does no harm." in asked_text(server.requests[0])
        with pytest.raises(ConfigurationError, match=r"give judge.criteria to rate"):
            judge.rewards(judged("a"))


def test_a_model_that_goes_by_another_name_is_counted_and_warned_of(store, capsys):
    with judging(lambda request, number: completion("[[5]]", model=f"judge-{number > 1}")) as server:
        judge = Judge(server.config(concurrency=1), store)
        judge.rewards(judged("a", "b", "c", "d"))
        assert judge.figures()["models"] == {"judge-False": 2, "judge-True": 2}
        assert capsys.readouterr().out.count("answers as 'judge-True', and before as 'judge-False'") == 1


def test_so_many_requests_are_under_way_at_once(store):
    with judging(lambda request, number: server.released.wait(0.1) or "[[5]]") as server:
        Judge(server.config(concurrency=3), store).rewards(judged(*map(str, range(12))))
        assert server.most_at_once == 3


def test_no_answers_ask_nothing(store):
    with judging(lambda request, number: DROP) as server:
        assert Judge(server.config(), store).rewards([]).shape == (0,)
        assert not server.requests
