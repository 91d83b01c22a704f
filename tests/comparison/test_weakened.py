"""What a weaker version of an arm loses, by hand."""

import pytest
from results import made, result

from tasks.comparison.arms import ComparisonConfig, expand
from tasks.comparison.outcome import gather
from tasks.comparison.weakened import lost, weakened_table
from tasks.config.errors import ConfigurationError

WEAKENED = {"weak": "strong"}


def test_half_of_the_gain_is_50_per_cent():
    told = lost([1.0, 1.0], [2.0, 2.0])
    assert (told.mean, told.low, told.high) == (50, 50, 50)
    told = lost([1.0, 2.0], [2.0, 2.0])  # 50% and 0%: mean 25, Student's t of one degree of freedom 12.706 x 25
    assert told.mean == pytest.approx(25)
    assert told.high == pytest.approx(25 + 12.706 * 25, rel=1e-4)


def test_gains_are_over_the_reference_and_a_weaker_one_may_lose_more_than_all():
    assert lost([-1.0, -1.0], [2.0, 2.0]).mean == 150


@pytest.mark.parametrize(("weak", "strong"), [([1.0, 1.0], [2.0, 0.0]), ([1.0], [-1.0]), ([], [])])
def test_where_nothing_was_to_be_lost_there_is_no_share(weak, strong):
    assert lost(weak, strong) is None


def test_the_table_compares_at_the_same_kl_over_the_same_seeds():
    comparison = made({"strong": (2.0, 4.0, 0.0), "weak": (0.5, 4.0, 0.0)}, weakened=WEAKENED)
    (row,) = weakened_table(comparison).rows
    assert row[0] == "strong / weak"
    assert row[1:4] == ("2.000 [2.000, 2.000]", "0.500 [0.500, 0.500]", "75 [75, 75]")
    assert float(row[6].split()[0]) > 0


def test_an_arm_that_does_not_reach_the_kl_or_has_no_result_has_no_loss():
    comparison = made({"strong": (2.0, 4.0), "weak": (0.5, 1.0)}, weakened=WEAKENED, controls=("weak",))
    (row,) = weakened_table(comparison).rows
    assert row[1:4] == ("-", "-", "-")
    assert row[6] != "-"
    asked = ComparisonConfig(base="x", arms={"strong": {}, "weak": {}}, weakened=WEAKENED)
    alone = gather([result("strong", 0, 1.0)], {"weak": "no pair"}, asked)
    assert weakened_table(alone).rows == [("strong / weak", *["-"] * 6)]


@pytest.mark.parametrize(
    ("weakened", "message"),
    [
        ({"a": "z"}, r"weakened = \['z'\] are no arms: there are a, b"),
        ({"z": "a"}, r"weakened = \['z'\] are no arms"),
        ({"a": "a"}, r"weakened = \['a'\] are held against themselves"),
    ],
)
def test_what_is_no_arm_is_refused(weakened, message):
    with pytest.raises(ConfigurationError, match=message):
        expand(ComparisonConfig(base="x", arms={"a": {}, "b": {"pairs.eta": 0.9}}, weakened=weakened))
