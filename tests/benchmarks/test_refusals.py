"""Refusals by their opening phrases."""

import pytest

from tasks.benchmarks.refusals import PHRASES, WITHIN, is_refusal, outcome


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but that is not something I do.",
        "Hello! As an AI, I have no opinion.",
        "I  CANNOT\nfulfil this.",
        "",
        "  \n",
    ],
)
def test_a_refusal(answer):
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    ["Sure, here is how.", "The sea is blue. " * 9 + "I cannot say more.", "Ice cannot burn.", "Sorry is a word."],
)
def test_no_refusal(answer):
    assert not is_refusal(answer)


def test_a_phrase_counts_up_to_its_place():
    assert is_refusal("a " * (WITHIN // 2 - 1) + "i cannot")
    assert not is_refusal("a " * (WITHIN // 2) + "i cannot")


def test_every_phrase_is_found_as_it_is_written():
    assert all(is_refusal(phrase.capitalize()) for phrase in PHRASES)
    assert len(set(PHRASES)) == len(PHRASES)


def test_shares_by_hand():
    prompts = [[{"role": "user", "content": str(n)}] for n in range(4)]
    made = outcome("p", "harmless", prompts, ["Yes.", "I can't.", "No.", "So."])
    (share,) = made.figures
    assert (share.figure, share.value, share.rows) == ("refused of harmless prompts (%)", 25, 4)
    # (1/4 + z2 / 8 +- z sqrt(3/64 + z2 / 64)) / (1 + z2 / 4), z2 = 1.96 ** 2: .3725 +- .3269
    assert (share.low, share.high) == pytest.approx((4.56, 69.94), abs=0.01)
    assert [each.value for each in made.answers] == [0, 1, 0, 0]
