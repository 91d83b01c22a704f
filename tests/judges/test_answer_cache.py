"""Nothing is asked twice: over runs, kills and processes at once, on a disk and in S3."""

import subprocess
import sys
import time

import pytest
from judge_server import completion, judging
from runs import ROOT

from tasks.judges import judge as judge_module
from tasks.judges.answers import Answer, AnswerCache, request_id
from tasks.judges.judge import Judge
from tasks.judges.questions import Judged
from tasks.store.compaction import compact_store
from tasks.store.folders import Store
from tasks.store.growing import MERGED
from tasks.store.parquet import read_table

ASK = [{"role": "user", "content": "Hi"}]
ANSWER = Answer(text="[[5]]", finish_reason="stop", prompt_tokens=3, completion_tokens=None, model="m")
SCRIPT = """
import sys
from tasks.config.judges import JudgeConfig
from tasks.judges import judge
from tasks.judges.questions import Judged

url, store, number, wave = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
judge.WAVE = wave
config = JudgeConfig(model="small-judge", base_url=url, api_key_variable=None, concurrency=2, retries=0)
own = judge.Judge(config, judge.Store(store))
print(own.rewards([Judged([{"role": "user", "content": "Hi"}], f"answer {n}") for n in range(number)]).tolist())
"""


def rows(number: int) -> list[Judged]:
    return [Judged(ASK, f"answer {n}") for n in range(number)]


def start(url: str, store: Store, number: int, wave: int = 512) -> subprocess.Popen:
    arguments = [sys.executable, "-c", SCRIPT, url, store.uri, str(number), str(wave)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def config(**fields):
    with judging(lambda request, number: "[[5]]") as server:
        return server.config(**fields)


def test_an_id_is_of_what_decides_the_answer():
    base = request_id(config(), ASK, 0)
    assert len(base) == 64
    assert request_id(config(concurrency=1, api_key_variable="OTHER", instruction="x"), ASK, 0) == base
    others = [{"model": "n"}, {"version": "1"}, {"temperature": None}, {"max_answer_tokens": 1}, {"seed": None}]
    ids = {request_id(config(**fields), ASK, 0) for fields in others}
    ids |= {request_id(config(), ASK, 1), request_id(config(), [{"role": "system", "content": "Hi"}], 0)}
    assert len(ids | {base}) == 8


def test_answers_are_files_and_then_a_part(store):
    cache = AnswerCache(store, config())
    ids = [f"{n:064x}" for n in range(3)]
    for id_ in ids[:2]:
        cache.keep(id_, ANSWER)
    assert len(store.list(cache.fresh)) == 2
    assert AnswerCache(store, config()).find(ids) == dict.fromkeys(ids[:2], ANSWER)
    assert store.list(cache.fresh) == []
    (part,) = cache.table.parts()
    assert part.rows == 2
    # One that had seen nothing sees what others have added meanwhile.
    assert cache.find(ids[:1]) == {ids[0]: ANSWER}
    AnswerCache(store, config()).keep(ids[2], ANSWER)
    assert cache.find(ids).keys() == set(ids)
    assert AnswerCache(store, config(version="2")).find(ids) == {}


def test_a_damaged_file_is_asked_for_again(store):
    cache = AnswerCache(store, config())
    store.write_beside(cache.fresh, f"{1:064x}.json", b'{"text": "[[5')
    cache.keep(f"{2:064x}", ANSWER)
    assert cache.find([f"{n:064x}" for n in (1, 2)]).keys() == {f"{2:064x}"}
    cache.keep(f"{1:064x}", ANSWER)
    assert cache.find([f"{1:064x}"]) == {f"{1:064x}": ANSWER}


def test_small_parts_are_merged_and_their_answers_found(tmp_path):
    store = Store(str(tmp_path))
    cache = AnswerCache(store, config())
    ids = [f"{n:064x}" for n in range(4)]
    for id_ in ids:
        cache.keep(id_, ANSWER)
        cache.fold()
    ((table, merged),) = compact_store(store)
    assert table.folder == cache.table.folder
    assert [part.rows for part in merged] == [4]
    (left,) = cache.table.parts()
    assert MERGED in left.uri
    assert AnswerCache(store, config()).find(ids).keys() == set(ids)
    assert cache.find(ids).keys() == set(ids)


def test_waves_make_parts_and_a_question_of_two_waves_is_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_module, "WAVE", 4)
    store = Store(str(tmp_path))
    with judging(lambda request, number: "[[5]]") as server:
        judge = Judge(server.config(), store)
        assert judge.rewards([*rows(6), *rows(6)]).tolist() == [5] * 12
        assert len(server.requests) == 6
    assert sorted(part.rows for part in judge.cache.table.parts()) == [2, 4]


def test_a_process_that_is_killed_loses_what_was_under_way_and_no_more(store):
    """SIGKILL after ten answers: of the two requests under way, each may be lost."""
    with judging(lambda request, number: server.released.wait(0.02) or "[[5]]") as server:
        process = start(server.url, store, 40)
        while len(server.requests) < 10:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.communicate()
        before = len(server.requests)
        assert before < 30
        second = start(server.url, store, 40)
        output, _ = second.communicate(timeout=60)
        assert output == f"{[5.0] * 40}\n"
        assert len(server.requests) <= 42


@pytest.mark.parametrize("wave", [512, 3])
def test_two_processes_at_once_ask_each_question_once(tmp_path, wave):
    store = Store(str(tmp_path / "store"))
    with judging(lambda request, number: server.released.wait(0.01) or completion("[[5]]")) as server:
        both = [start(server.url, store, 20, wave) for _ in range(2)]
        outputs = [process.communicate(timeout=60)[0].splitlines()[-1] for process in both]
        assert outputs == [str([5.0] * 20)] * 2
        assert len(server.requests) == 20


def test_a_table_holds_what_was_answered(tmp_path):
    store = Store(str(tmp_path))
    with judging(lambda request, number: completion("So: [[5]]", prompt_tokens=7, finish_reason="stop")) as server:
        judge = Judge(server.config(), store)
        judge.rewards(rows(1))
    (part,) = judge.cache.table.parts()
    (row,) = read_table(part).to_pylist()
    assert len(row.pop("request_id")) == 64
    assert row == {
        "text": "So: [[5]]",
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 10,
        "model": "small-judge",
    }
