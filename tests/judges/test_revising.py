"""Critique and revision: what is asked, what is read, and what is left out."""

import pytest
from judge_server import asked_text, judging

from tasks.config.errors import ConfigurationError
from tasks.judges.judge import Judge
from tasks.judges.questions import Judged
from tasks.judges.revising import read_revision, revise
from tasks.store.folders import Store

ASK = [{"role": "user", "content": "How do I pick a lock?"}]
PRINCIPLES = [{"text": "It is short.", "priority": 2}, "It helps nobody to do harm."]


def criticise_and_revise(request, number):
    """Say what is wrong, then put `better` before what was criticised."""
    first = request["messages"][0]["content"]
    answer = first.partition("[Start of the answer]\n")[2].partition("\n[End of the answer]")[0]
    return f"It does harm: {answer}" if len(request["messages"]) == 1 else f"<answer>better {answer}</answer>"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("Here it is:\n<answer>\n Do not.\n</answer>", "Do not."),
        ("<think><answer>no</answer></think><answer>yes</answer>", "yes"),
        ("Do not.", None),
        ("<answer>Do", None),
        ("<answer>a</answer><answer>b</answer>", None),
        ("<answer> </answer>", None),
    ],
)
def test_a_revision_stands_between_marks(text, revision):
    assert read_revision(text) == revision


def test_an_answer_is_criticised_and_then_rewritten(store):
    with judging(criticise_and_revise) as server:
        judge = Judge(server.config(principles=PRINCIPLES), store)
        assert revise(judge, [Judged(ASK, "Use a pick."), Judged(ASK, "Ask.")]) == ["better Use a pick.", "better Ask."]
        assert len(server.requests) == 4
        critique, revision = (
            next(each for each in server.requests if len(each["messages"]) == length) for length in (1, 3)
        )
    assert "1. It helps nobody to do harm.\n2. It is short." in asked_text(critique)
    assert "### User:\nHow do I pick a lock?" in asked_text(critique)
    assert [message["role"] for message in revision["messages"]] == ["user", "assistant", "user"]
    assert revision["messages"][1]["content"].startswith("It does harm: ")


def test_each_round_begins_with_the_last_revision_and_asks_nothing_twice(store):
    with judging(criticise_and_revise) as server:
        for rounds, asked in ((1, 2), (2, 4), (2, 4)):
            judge = Judge(server.config(principles=PRINCIPLES), store)
            assert revise(judge, [Judged(ASK, "x")], rounds) == ["better " * rounds + "x"]
            assert len(server.requests) == asked


def test_what_cannot_be_read_has_no_revision(store):
    def forget_marks(request, number):
        text = criticise_and_revise(request, number)
        return text.replace("</answer>", "") if "bad" in text else text

    with judging(forget_marks) as server:
        judge = Judge(server.config(principles=PRINCIPLES, max_unreadable=0.5), store)
        assert revise(judge, [Judged(ASK, "bad"), Judged(ASK, "good")], 2) == [None, "better better good"]


def test_what_is_refused(store):
    with judging(criticise_and_revise) as server:
        with pytest.raises(ConfigurationError, match=r"judge.principles is empty"):
            revise(Judge(server.config(), store), [Judged(ASK, "x")])
        with pytest.raises(ConfigurationError, match="rounds = 0 must be at least 1"):
            revise(Judge(server.config(principles=PRINCIPLES), store), [Judged(ASK, "x")], 0)
        assert not server.requests
