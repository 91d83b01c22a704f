"""python -m flows.ask: both policies of a run, asked by hand."""

import io

import pytest
from kept_store import kept_run, kept_store

from flows.ask import main
from tasks.pipeline.configuration import Config

QUESTION = "What colour is the seal?"


def configured(**data) -> dict:
    sections = {"data": {"prompts": "p.jsonl", **data}, "sft": {"ready_model": "m"}}
    return Config.model_validate({**sections, "sampling": {"max_new_tokens": 12}}).model_dump(mode="json")


@pytest.fixture
def store(tmp_path):
    return kept_store(tmp_path / "store")


def answers(capsys, *arguments) -> list[str]:
    main(list(arguments))
    return capsys.readouterr().out.splitlines()


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_both_policies_answer_and_a_seed_answers_again(store, capsys):
    kept_run(store, config=configured())
    lines = answers(capsys, store.uri, QUESTION, "Where does the fox live?")
    assert [line.split(":")[0].strip() for line in lines] == ["sft", "aligned"] * 2
    assert all(line.partition(": ")[2] for line in lines)
    assert answers(capsys, store.uri, QUESTION) == lines[:2]
    assert answers(capsys, store.uri, QUESTION, "--seed", "1") != lines[:2]


def test_lines_are_read_up_to_an_empty_one(store, capsys, monkeypatch):
    kept_run(store, config=configured(system_prompt="Be brief."))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n\nnever read\n"))
    assert len(answers(capsys, store.uri)) == 2


def test_what_cannot_be_asked_is_refused(store, capsys):
    assert "has no finished run" in refused(capsys, store.uri, QUESTION)
    kept_run(store)
    assert "has no configuration: run again" in refused(capsys, store.uri, QUESTION)
    kept_run(store, config=configured())
    assert "tokens, at most 244 fit before an answer: shorten it" in refused(capsys, store.uri, "seal " * 300)
    halfway = kept_run(store, status="running", config=configured())
    assert "run it to its end" in refused(capsys, store.uri, QUESTION, "--run", halfway.id)
