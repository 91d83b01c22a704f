"""Win rates by hand, what is left out of them, and the tables that figures become."""

import math

import numpy as np
import pytest

from tasks.benchmarks.figures import Answered, Figure, Outcome, Resampling
from tasks.benchmarks.win_rate import Instruction, outcome, read_instructions
from tasks.config.benchmarks import WinRateConfig
from tasks.config.errors import ConfigurationError
from tasks.report.benchmarked import benchmark_tables, samples_of
from tasks.report.benchmarks_page import benchmarks_page

BY = Resampling(200, 0)


def asked(count: int) -> list[Instruction]:
    return [Instruction([{"role": "user", "content": f"q{n}"}], "ref") for n in range(count)]


def test_wins_ties_and_the_unreadable_by_hand():
    wins = np.array([1, 1, 0.5, 0, 1, np.nan])
    made = outcome("p", asked(6), (["long"] * 6, ["ref"] * 6), wins, BY)
    rate, longer = made.figures
    assert (rate.value, rate.rows) == (pytest.approx(70), 5)  # 3.5 of 5
    assert rate.low <= 70 <= rate.high
    assert (longer.value, longer.rows) == (1, 5)
    assert made.notes == [
        "p: 1 of 6 comparisons were unreadable and left out",
        "p: fewer than 100 comparisons, so no length-controlled win rate",
    ]
    assert [each.value for each in made.answers][:5] == [1, 1, 0.5, 0, 1]


def test_a_hundred_comparisons_have_a_length_controlled_rate():
    wins = np.tile([1, 1, 1, 1, 0], 20).astype(float)
    made = outcome("p", asked(100), (["long"] * 100, ["ref"] * 100), wins, BY)
    rate, controlled, _ = made.figures
    assert rate.value == pytest.approx(80)
    assert controlled.value == pytest.approx(80, abs=3)  # all lengths differ alike
    assert made.notes == []


def test_no_readable_verdict_is_no_figure():
    made = outcome("p", asked(2), (["a"] * 2, ["b"] * 2), np.full(2, np.nan), BY)
    assert all(math.isnan(each.value) and each.rows == 0 for each in made.figures)
    assert benchmark_tables({"win_rate": made})["win_rate"].rows[0] == ("win rate (%)", "-", "0")


def test_instructions_need_a_reference_unless_a_policy_gives_it(tmp_path):
    path = tmp_path / "asked.jsonl"
    path.write_text('{"instruction": "Say it.", "input": "Loudly.", "output": "It!"}\n')
    (one,) = read_instructions(WinRateConfig(instructions=str(path)))
    assert one == ([{"role": "user", "content": "Say it.\n\nLoudly."}], "It!")
    path.write_text('{"instruction": "Say it."}\n')
    assert read_instructions(WinRateConfig(instructions=str(path), against="sft"))[0].reference is None
    with pytest.raises(ConfigurationError, match="cannot serve as demonstrations"):
        read_instructions(WinRateConfig(instructions=str(path)))


def test_a_task_s_difference_from_the_first_policy():
    scores = {"sft": (0.5, 0.45, 0.55), "aligned": (0.475, 0.425, 0.525)}
    figures = [Figure(policy, "lm_eval", "gsm8k acc", *values, 100) for policy, values in scores.items()]
    table = benchmark_tables({"lm_eval": Outcome(figures, [], [])})["lm_eval"]
    assert table.head == ("lm_eval", "sft", "aligned", "of")
    assert table.rows == [("gsm8k acc", "0.500  [0.450, 0.550]", "0.475  [0.425, 0.525]  (-0.025)", "100")]


def test_the_page_shows_where_policies_differ_first_and_escapes_what_they_say():
    prompts = [[{"role": "user", "content": text}] for text in ("same", "apart")]
    values = {"a": (5.0, 9.0), "b": (5.0, math.nan), "c": (5.0, 2.0)}
    answers = [
        Answered(policy, prompt, "<b>said</b>", "mt_bench turn 1", value)
        for policy, own in values.items()
        for prompt, value in zip(prompts, own, strict=True)
    ]
    first, second = samples_of(answers)
    assert (first.prompt, second.prompt) == ([("user", "apart")], [("user", "same")])
    assert [side.reward for side in first.sides] == ["9", "unreadable", "2"]
    page = benchmarks_page({"mt_bench": Outcome([], answers, ["a note"])}, "store").decode()
    assert "<b>said" not in page
    assert "a note" in page
