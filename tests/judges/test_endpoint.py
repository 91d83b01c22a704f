"""What endpoints do: refuse, hang, drop, answer in odd shapes. Nothing waits for ever, what was answered is kept."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from judge_server import DROP, Reply, asked_text, completion, judging

from tasks.config.errors import ConfigurationError
from tasks.judges import endpoint
from tasks.judges.endpoint import is_loopback, retry_after
from tasks.judges.judge import Judge
from tasks.judges.questions import Judged
from tasks.store.folders import Store

ASK = [{"role": "user", "content": "Hi"}]
FINE = completion("[[5]]")


def answers(number: int) -> list[Judged]:
    return [Judged(ASK, f"answer {n}") for n in range(number)]


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    return Store(str(tmp_path / "store"))


def error(status: int, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": "no such thing", "code": "some_code"}})
    return Reply(body, status, tuple((name.replace("_", "-"), value) for name, value in headers.items()))


def once(first: Reply):
    """Answer the first request so, and the others well."""
    return lambda request, number: first if number == 0 else FINE


@pytest.mark.parametrize(
    "first",
    [
        *(error(status) for status in (408, 409, 429, 500, 502, 503, 529)),
        DROP,
        Reply('{"choices": [{"message": {"con'),
        Reply(FINE.body[:50], length=len(FINE.body)),
        Reply("<html>busy</html>"),
        Reply('{"error": "busy"}'),
        Reply("[]"),
        Reply(b"\xff\xfe"),
        Reply(""),
        Reply("[" * 100_000),
    ],
    ids=str,
)
def test_what_passes_is_sent_again(store, first):
    with judging(once(first)) as server:
        judge = Judge(server.config(), store)
        assert judge.rewards(answers(1)).tolist() == [5]
        assert len(server.requests) == 2
        assert judge.stats.asked == 1


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "that its context holds the question and judge.max_answer_tokens"),
        (401, "set JUDGE_KEY to a key that holds"),
        (403, "set JUDGE_KEY to a key that may use this model"),
        (404, "check judge.model, and judge.base_url"),
        (422, "check judge.model"),
    ],
)
def test_what_does_not_pass_is_an_error_at_once(store, monkeypatch, status, remedy):
    monkeypatch.setenv("JUDGE_KEY", "sk-mine")
    with judging(lambda request, number: FINE if number < 2 else error(status)) as server:
        config = server.config(api_key_variable="JUDGE_KEY", concurrency=1)
        with pytest.raises(ConfigurationError) as caught:
            Judge(config, store).rewards(answers(9))
        assert len(server.requests) == 3
        assert set(server.keys) == {"Bearer sk-mine"}
    assert f"judge small-judge at {config.base_url}, asked about answer 3 to 'Hi', refuses with status {status}" in str(
        caught.value
    )
    assert remedy in str(caught.value)
    assert "no such thing" in str(caught.value)
    assert "sk-mine" not in str(caught.value)
    with judging(lambda request, number: FINE) as server:
        judge = Judge(server.config(), store)
        judge.rewards(answers(9))
        assert (judge.stats.asked, judge.stats.cached) == (7, 2)


def test_a_key_that_is_not_set(store, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with judging(lambda request, number: FINE) as server:
        with pytest.raises(ConfigurationError, match="needs the environment variable JUDGE_KEY: set it"):
            Judge(server.config(api_key_variable="JUDGE_KEY"), store).rewards(answers(1))
        assert not server.requests


@pytest.mark.parametrize("key", ["sk-mi\nne", "sk-minäe", "sk-mine\x7f"])
def test_a_key_that_no_request_can_carry_is_not_repeated(store, monkeypatch, key):
    monkeypatch.setenv("JUDGE_KEY", key)
    with judging(lambda request, number: FINE) as server:
        with pytest.raises(ConfigurationError, match="JUDGE_KEY holds something else than printable ASCII") as caught:
            Judge(server.config(api_key_variable="JUDGE_KEY"), store).rewards(answers(1))
        assert "sk-mi" not in str(caught.value)
        assert not server.requests


@pytest.mark.parametrize("status", [200, 401])
def test_an_endpoint_that_repeats_the_key_does_not_make_us_print_it(store, monkeypatch, status):
    monkeypatch.setenv("JUDGE_KEY", "sk-mine")
    body = json.dumps({"error": {"message": "no such key: sk-mine"}})
    asked = pytest.raises(ConfigurationError, match=r"no such key: \*\*\*")
    with judging(lambda request, number: Reply(body, status)) as server, asked as caught:
        Judge(server.config(api_key_variable="JUDGE_KEY", retries=0), store).rewards(answers(1))
    assert "sk-mine" not in str(caught.value)


def test_what_an_endpoint_says_beside_its_text_can_always_be_stored(store):
    odd = json.loads(completion("[[5]]", prompt_tokens=10**30, model="m\ud800", finish_reason="\ud800").body)
    with judging(lambda request, number: Reply(json.dumps(odd))) as server:
        assert Judge(server.config(), store).rewards(answers(1)).tolist() == [5]
        assert Judge(server.config(), store).rewards(answers(1)).tolist() == [5]
        assert len(server.requests) == 1


def test_a_quota_that_is_used_up_does_not_pass(store):
    body = json.dumps({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
    with judging(lambda request, number: Reply(body, 429)) as server:
        with pytest.raises(ConfigurationError, match="the quota is used up"):
            Judge(server.config(), store).rewards(answers(1))
        assert len(server.requests) == 1


def test_the_endpoint_is_left_alone_for_as_long_as_it_asks(store):
    times = []

    def busy_once(request, number):
        times.append(time.monotonic())
        return error(429, Retry_After="0.7") if number == 0 else FINE

    with judging(busy_once) as server:
        assert Judge(server.config(concurrency=1), store).rewards(answers(2)).tolist() == [5, 5]
    assert 0.7 <= times[1] - times[0] < 2


@pytest.mark.parametrize("as_date", [False, True])
def test_an_hour_is_not_waited_for(store, as_date):
    header = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True) if as_date else "3600"
    with judging(lambda request, number: error(429, Retry_After=header)) as server:
        with pytest.raises(ConfigurationError, match=r"asks to wait for 3[56]\d\d s \(status 429\), more than 300"):
            Judge(server.config(), store).rewards(answers(1))
        assert len(server.requests) == 1


@pytest.mark.parametrize(("reply", "problem"), [(error(429), "status 429"), (DROP, "Connection error")])
def test_an_endpoint_that_stays_so_is_an_error_in_bounded_time(store, reply, problem):
    with judging(lambda request, number: FINE if number < 2 else reply) as server:
        with pytest.raises(
            ConfigurationError, match=f"answer 3 to 'Hi', did not answer in 4 requests, the last one: {problem}"
        ):
            Judge(server.config(retries=3, concurrency=1), store).rewards(answers(9))
        assert len(server.requests) == 6
        assert len(Judge(server.config(), store).cache.find([])) == 0
        judge = Judge(server.config(), store)
        judge.rewards(answers(2))
        assert judge.stats.cached == 2


def test_an_endpoint_that_is_down(store):
    with judging(lambda request, number: FINE) as server:
        config = server.config(retries=1, budget_tokens=900)
    with pytest.raises(ConfigurationError, match=r"did not answer in 2 requests.*See that it is up at judge.base_url"):
        Judge(config, store).rewards(answers(1))


@pytest.mark.parametrize("drips", [False, True])
def test_an_endpoint_that_hangs(store, drips):
    def hang(request, number):
        if number and not drips:
            server.released.wait(20)
        return FINE._replace(drip=0.1) if number and drips else FINE  # each byte in time, and the last one never

    with judging(hang) as server:
        begun = time.monotonic()
        with pytest.raises(ConfigurationError, match=r"no whole answer within judge.timeout_seconds = 0.4"):
            Judge(server.config(retries=1, timeout_seconds=0.4, concurrency=1), store).rewards(answers(3))
        assert time.monotonic() - begun < 5
        assert len(server.requests) == 3


def test_an_error_is_not_held_up_by_what_hangs(store):
    def hang_or_refuse(request, number):
        if "answer 0" in asked_text(request):
            server.released.wait(20)
        return error(401)

    with judging(hang_or_refuse) as server:
        begun = time.monotonic()
        with pytest.raises(ConfigurationError, match=r"answer [23] to 'Hi', refuses with status 401"):
            Judge(server.config(timeout_seconds=1, concurrency=2, api_key_variable=None), store).rewards(answers(9))
        assert time.monotonic() - begun < 10
        assert len(server.requests) <= 3


SHAPES = {
    "no choices": '{"choices": []}',
    "null choice": '{"choices": [null]}',
    "null content": completion(None).body,
    "no message": '{"choices": [{"finish_reason": "content_filter"}]}',
    "a number": completion(7).body,
    "reasoning alone": json.dumps({"choices": [{"message": {"content": None, "reasoning_content": "[[5]]"}}]}),
    "cut": completion("I have thought about", finish_reason="length").body,
    "another language": completion("我认为这个回答很好七分").body,
    "a lone surrogate": json.dumps({"choices": [{"message": {"content": "\ud800"}}]}),
    "usage of text": json.dumps({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}),
}


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_an_answer_without_a_verdict_is_asked_for_once_more_and_kept(store, body):
    with judging(lambda request, number: Reply(body)) as server:
        for asked in (2, 0):
            judge = Judge(server.config(max_unreadable=1), store)
            assert np.isnan(judge.rewards(answers(1))).all()
            assert (judge.stats.asked, judge.stats.unreadable) == (asked, 1)


def test_answers_in_parts_and_after_reasoning(store):
    parts = [{"type": "text", "text": "Fine: "}, {"type": "text", "text": "[[7]]"}, {"type": "image", "x": 1}, None]
    replies = [completion(parts), completion("<think>[[1]]</think>[[8]]"), completion("[[9]]", logprobs=None)]
    with judging(lambda request, number: replies[number]) as server:
        assert Judge(server.config(concurrency=1), store).rewards(answers(3)).tolist() == [7, 8, 9]


def test_a_proxy_is_not_asked_about_this_machine(store, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with judging(lambda request, number: FINE) as server:
        assert Judge(server.config(retries=0), store).rewards(answers(1)).tolist() == [5]


def test_which_addresses_are_this_machine():
    assert is_loopback("http://127.0.0.1:8400/v1")
    assert is_loopback("http://localhost/v1")
    assert is_loopback("http://[::1]:1/v1")
    assert not is_loopback("https://api.example.com/v1")
    assert not is_loopback("http://10.0.0.1/v1")


def test_retry_after_as_seconds_and_as_a_date():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after": "-3"}) == 0
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "nan"}) is None
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert 88 < retry_after({"retry-after": format_datetime(later, usegmt=True)}) <= 90
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
