"""Answers as texts and numbers, and GSM8K: its solutions, and what of its rewards becomes a pair."""

import json
import re
from fractions import Fraction

import numpy as np
import pytest
from candidates import candidates
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.records import parse_record
from tasks.rewards.programs.answers import exact_answer, gsm8k_answer, numeric_answer, stated_number
from tasks.rewards.programs.numerals import numbers
from tasks.selection.strategies import PairsConfig, select

TAG = r"(?s)<answer>(.*?)</answer>"


@pytest.fixture(scope="module")
def problems(test_data) -> list[dict[str, str]]:
    return [json.loads(line) for line in (test_data / "gsm8k/test.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$1,234.50.", ["2469/2"]),
        ("5-3, 5 - 3, (5)-3", ["5", "3", "5", "3", "5", "3"]),
        ("-5, (-7), $-5, -$5, \N{MINUS SIGN}4", ["-5", "-7", "-5", "-5", "-4"]),
        ("1/2 and -1 1/2, 5/0", ["1/2", "-3/2", "5", "0"]),
        (r"\frac{1}{2}, -\dfrac12, 3\frac{1}{2}", ["1/2", "-1/2", "7/2"]),
        (r"80{,}000, 80\,000, \$18, 50\%", ["80000", "80000", "18", "50"]),
        ("1e5, .5, 3., 007", ["100000", "1/2", "3", "7"]),
        ("18th, 5kg, x5, v1.2.3", ["18", "5"]),
        ("1.5 million, 3,5, 1,2345", ["3/2", "3", "5", "1", "2345"]),
        ("9" * 500, []),  # no answer
        ("1e999999999", ["1"]),
        ("none", []),
    ],
)
def test_numbers_by_hand(text, found):
    assert numbers(text) == [Fraction(each) for each in found]


@given(number=st.integers(-(10**12), 10**12))
def test_a_number_is_read_as_it_is_written(number):
    assert numbers(f"It is {number}.") == numbers(f"It is {number:,}.") == [number]


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("She has 3, so 12.", 12),
        ("The answer is 5 + 3 = 8 apples for 2 days.", 8),
        ("**Answer:** $18 dollars over 3 days", 18),
        ("The answer is:\n\n**18**\nover 3 days", 18),
        (r"So \boxed{x = \frac{1}{2}} of 7", Fraction(1, 2)),
        ("The answer is 4. Wait: \n#### 18\nover 3 days", 18),
        ("The answer is unclear. 7", 7),
        ("final answer = 1,000", 1000),
        (r"\boxed{", None),
        ("no", None),
    ],
)
def test_the_number_that_a_text_states(text, stated):
    assert stated_number(text) == stated


def test_exact_answers():
    assert exact_answer([], " New\n York ", "New York") == 1
    assert exact_answer([], "new york", "New York") == 0
    assert exact_answer([], "new york", "New York", ignore_case=True) == 1
    assert exact_answer([], "I say <answer>4</answer> <answer> 5 </answer>", "5", TAG) == 1  # the last one
    assert exact_answer([], "I say 5", "5", TAG) == 0
    assert exact_answer([], "<answer></answer>", "<answer>5</answer>", TAG) == 0
    assert exact_answer([], "<answer>5</answer>", "Since 2 + 3: <answer>5</answer>", TAG) == 1


def test_tolerance_is_a_share_of_the_right_number():
    assert numeric_answer([], "about 101", "100", 0.01) == 1  # exactly at the bound
    assert numeric_answer([], "about 101.1", "100", 0.01) == 0
    assert numeric_answer([], "0.333", "1/3", 0.001) == 1
    assert numeric_answer([], "0.333", "1/3") == 0
    assert numeric_answer([], "-2", "2", 0.9) == 0
    assert numeric_answer([], "no idea", "2") == 0


@pytest.mark.parametrize("reference", [None, "", " \n"])
@pytest.mark.parametrize("reward", [exact_answer, numeric_answer, gsm8k_answer])
def test_a_prompt_without_a_reference_is_not_scored(reward, reference):
    with pytest.raises(ValueError, match="the prompt has no reference: put the answer into the column"):
        reward([], "5", reference)


def test_a_reference_without_a_number_is_not_scored():
    with pytest.raises(ValueError, match="the reference 'five' has no number"):
        numeric_answer([], "5", "five")
    with pytest.raises(ValueError, match="the reference '5' has no number after ####"):
        gsm8k_answer([], "5", "5")
    with pytest.raises(ValueError, match="has no number after ####"):
        gsm8k_answer([], "5", "5 #### five")


def test_every_solution_of_gsm8k_is_right(problems):
    solutions = [problem["answer"] for problem in problems]
    assert len(solutions) == 1319
    assert {gsm8k_answer([], solution, solution, marked=True) for solution in solutions} == {1}
    unmarked = [solution.rpartition("####")[0] for solution in solutions]
    assert sum(gsm8k_answer([], *both) for both in zip(unmarked, solutions, strict=True)) == 1282  # docs/programs.md
    # By another rule: GSM8K's own, the digits after ####.
    plain = [re.search(r"#### (-?[\d,.]+)", solution)[1].replace(",", "") for solution in solutions]
    assert [stated_number(solution) for solution in solutions] == [Fraction(number) for number in plain]
    others = [solutions[-1], *solutions[:-1]]
    shared = sum(one == other for one, other in zip(plain, [plain[-1], *plain[:-1]], strict=True))
    assert sum(gsm8k_answer([], one, other) for one, other in zip(solutions, others, strict=True)) == shared


RIGHT = ("{}", "It is ${:,}.", "#### {:,}", r"\boxed{{{}}}", "The answer is {:.2f} dollars.", "**Answer: {}%**")
WRONG = ("{}0", "It is -{}.", "#### {}.5", "It is {}, no, 99,999,999.", r"\boxed{{{}1}}", "I do not know.")


def completions(place: int, number: int) -> list[str]:
    """Return eight completions of a problem, of which place % 9 are right, in formats that change."""
    forms = [*[RIGHT[(place + j) % 6] for j in range(place % 9)], *[WRONG[(place + j) % 6] for j in range(8)]]
    return [form.format(number) for form in forms[:8]]


def test_gsm8k_becomes_pairs(problems):
    rows = [parse_record(problem, "prompts") for problem in problems]
    references = [row.completion for row in rows]  # the prompts table's reference_completion
    positive = [each for each in references if stated_number(each) > 0 and stated_number(each).denominator == 1][:200]
    rewards = np.array(
        [
            [gsm8k_answer([], text, reference) for text in completions(place, int(stated_number(reference)))]
            for place, reference in enumerate(positive)
        ]
    )
    assert rewards.sum(axis=1).tolist() == [place % 9 for place in range(200)]
    # Gap 1 is kept where 1 > tau * log(.85 / .15) = 1.735 tau.
    table, right = candidates(rewards), rewards.sum(axis=1)
    assert select(table, PairsConfig(tau=1.0)).row.size == 0
    assert select(table, PairsConfig(tau=0.58)).row.size == 0
    every = select(table, PairsConfig(tau=0.57))
    assert np.bincount(every.row, minlength=200).tolist() == (right * (8 - right)).tolist()
    kept = select(table, PairsConfig(tau=0.5, pass_rate={"at": 0.5, "least": 0.2, "most": 0.8}))
    assert set(kept.row.tolist()) == {place for place in range(200) if 2 <= place % 9 <= 6}  # 2/8 to 6/8
    assert set(rewards[kept.row, kept.chosen]) == {1}
    assert set(rewards[kept.row, kept.rejected]) == {0}
