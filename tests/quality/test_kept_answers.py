"""A set in the store: found again by its content, and joined with rewards by id."""

from tasks.data.records import Record, prompt_id
from tasks.quality.answers import Answers
from tasks.quality.kept import keep
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.store.slices import read_slices, read_sorted


def answers(source: str = "file", last: str = "Go.") -> Answers:
    found = Answers(source)
    for question, texts in (("Why?", ["So.", "So."]), ("How?", [last])):
        for text in texts:
            found.add(Record([{"role": "user", "content": question}], metadata='{"id":1}'), text)
    return found


def test_a_set_is_prompts_and_completions(store):
    kept = keep(store, answers())
    why, how = (prompt_id([{"role": "user", "content": question}]) for question in ("Why?", "How?"))
    rows = read_sorted(read_slices(store, kept.completions)).to_pylist()
    assert {(row["prompt_id"], row["completion_id"]): row["completion"] for row in rows} == {
        (why, 0): "So.",
        (why, 1): "So.",
        (how, 0): "Go.",
    }
    assert {(row["num_tokens"], tuple(row["token_ids"]), row["finish_reason"]) for row in rows} == {(0, (), "stop")}
    prompts = {row["prompt_id"]: row for row in read_table(kept.prompts).to_pylist()}
    assert prompts.keys() == {why, how}
    assert prompts[why]["metadata"] == '{"id":1}'
    assert prompts[why]["reference_completion"] is None, "the chosen side is no secret to a function otherwise"


def test_the_same_set_from_elsewhere_is_the_same(tmp_path):
    store = Store(str(tmp_path))
    first, again, other = keep(store, answers()), keep(store, answers("elsewhere")), keep(store, answers(last="No."))
    assert again == first
    assert other.completions.digest != first.completions.digest
    assert other.prompts == first.prompts
