"""Sets as they are read: the formats of pairs, samples, categories, and what is refused."""

import json
from pathlib import Path

import pytest

from tasks.config.errors import ConfigurationError
from tasks.quality.answers import Pair, PairedAnswers, SampledAnswers, read_answers, read_pairs, read_samples
from tasks.quality.settings import PairSet, SampleSet


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refused(chosen: PairSet | SampleSet) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_answers("mine", chosen)
    return str(caught.value)


PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}


def test_the_sides_of_a_prompts_pairs_are_held_once(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIR, {**PAIR, "rejected": "Go."}, {**PAIR, "prompt": "How?"})
    found = read_pairs(PairSet(source=path))
    (why, how) = found.prompts
    assert found.completions == {why: ["So.", "No.", "Go."], how: ["So.", "No."]}
    assert found.pairs == [Pair(why, 0, 1, "all"), Pair(why, 0, 2, "all"), Pair(how, 0, 1, "all")]
    assert found.prompts[why].messages == [{"role": "user", "content": "Why?"}]


def test_llmbar_names_the_better_output(tmp_path):
    row = {"input": "Why?", "output_1": "No.", "output_2": "So.", "label": 2}
    found = read_pairs(PairSet(source=write(tmp_path / "a.jsonl", row), format="llmbar"))
    (id_,) = found.prompts
    assert (found.completions[id_], found.pairs) == (["So.", "No."], [Pair(id_, 0, 1, "all")])


@pytest.mark.parametrize("label", [0, 3, None, True, "1"])
def test_a_label_that_names_no_output_is_a_bad_row(tmp_path, label):
    row = {"input": "Why?", "output_1": "No.", "output_2": "So.", "label": label}
    path = write(tmp_path / "a.jsonl", row)
    message = refused(PairSet(source=path, format="llmbar"))
    assert "set mine: " in message
    assert "label is neither 1 nor 2: 1 (first a.jsonl line 1)" in message
    assert "has no usable row" in refused(PairSet(source=path, format="llmbar", max_bad_fraction=1))


def test_rewardbench_has_subsets_and_others_a_column_that_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", {**PAIR, "subset": "hep-go", "id": 7}, {**PAIR, "subset": "math-prm", "id": 8})
    assert [pair.category for pair in read_pairs(PairSet(source=path, format="rewardbench")).pairs] == [
        "hep-go",
        "math-prm",
    ]
    found = read_pairs(PairSet(source=path, category="id"))
    assert [pair.category for pair in found.pairs] == ["7", "8"]


def test_a_column_that_is_missing_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIR)
    assert "a.jsonl line 1 has no column subset, but chosen, prompt, rejected" in refused(
        PairSet(source=path, format="rewardbench")
    )
    assert "has no column topic" in refused(PairSet(source=path, category="topic"))
    assert "has no column input, label, output_1, output_2" in refused(PairSet(source=path, format="llmbar"))
    assert "cannot serve as preferences" in refused(PairSet(source=write(tmp_path / "b.jsonl", {"prompt": "Why?"})))
    assert "has no column worth" in refused(SampleSet(source=path, gold_column="worth"))


def test_a_row_without_a_category_is_bad(tmp_path):
    path = write(tmp_path / "a.jsonl", {**PAIR, "topic": "a"}, {**PAIR, "topic": " "})
    assert "topic is no category: 1 (first a.jsonl line 2)" in refused(PairSet(source=path, category="topic"))


def test_so_many_rows_are_read_as_are_asked_for(tmp_path):
    path = write(tmp_path / "a.jsonl", *({**PAIR, "prompt": f"Why {n}?"} for n in range(5)))
    found = read_pairs(PairSet(source=path, max_rows=3))
    assert (len(found.pairs), found.read) == (3, {"read": 3, "bad": {}, "left_out": {}})


def test_equal_samples_are_several(tmp_path):
    rows = [{"prompt": "Why?", "completion": text, "worth": worth} for text, worth in (("So.", 1), ("So.", 0.5))]
    found = read_samples(SampleSet(source=write(tmp_path / "a.jsonl", *rows), gold_column="worth"))
    (id_,) = found.prompts
    assert (found.completions, found.gold) == ({id_: ["So.", "So."]}, {id_: [1.0, 0.5]})
    without = read_samples(SampleSet(source=str(tmp_path / "a.jsonl"), held_out="other"))
    assert not without.gold


@pytest.mark.parametrize("worth", [None, True, "1", float("nan")])
def test_a_gold_reward_is_a_number(tmp_path, worth):
    rows = [
        {"prompt": "Why?", "completion": "So.", "worth": worth},
        {"prompt": "Why?", "completion": "So.", "worth": 1},
    ]
    assert "worth is no finite number: 1" in refused(
        SampleSet(source=write(tmp_path / "a.jsonl", *rows), gold_column="worth")
    )


def test_one_completion_a_prompt_is_no_set_of_samples(tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "Why?", "completion": "So.", "worth": 1})
    assert "has one completion a prompt" in refused(SampleSet(source=path, gold_column="worth"))


# Real files.


@pytest.mark.parametrize(("name", "rows", "first"), [("Natural", 100, 42), ("Manual", 46, 22)])
def test_llmbar_is_read_whole(test_data, name, rows, first):
    source = test_data / f"llmbar/{name}.json"
    found = read_pairs(PairSet(source=str(source), format="llmbar"))
    assert len(found.pairs) == rows
    texts = {(found.completions[pair.prompt_id][pair.chosen]) for pair in found.pairs}
    better = [row[f"output_{row['label']}"] for row in json.loads(source.read_text())]
    assert texts == {*better}
    assert sum(row["label"] == 1 for row in json.loads(source.read_text())) == first


def test_hh_and_best_of_n_are_read(test_data):
    harmless = read_answers(
        "harmless", PairSet(source=str(test_data / "hh-rlhf/harmless-base_test.jsonl.gz"), max_rows=100)
    )
    assert isinstance(harmless, PairedAnswers)
    assert len(harmless.pairs) == 100
    assert any(len(prompt.messages) > 1 for prompt in harmless.prompts.values()), "several turns"
    tulu = read_answers(
        "tulu", SampleSet(source=str(test_data / "best_of_n/tulu2_13b_200x11.parquet"), gold_column="reward")
    )
    assert isinstance(tulu, SampledAnswers)
    assert {len(texts) for texts in tulu.completions.values()} == {11}
    assert len(tulu.prompts) == 200
