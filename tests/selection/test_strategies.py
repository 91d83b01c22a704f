"""Strategies, the truncation rule, and equal texts."""

import numpy as np
import pyarrow as pa
import pytest
from candidates import NAN, as_set, candidates, chosen

from tasks.selection.annotation import AnnotationSettings, annotated_pairs
from tasks.selection.best_vs_worst import best_against_worst
from tasks.selection.pairs import StrategySettings
from tasks.selection.strategies import SETTINGS, PairsConfig, bases_of, select, settings_of
from tasks.selection.threshold import ThresholdSettings

CUT = candidates([[0.0, 4.0, 8.0, 1.0]], cut=[(0, 2)])


@pytest.mark.parametrize(
    ("strategy", "truncated", "expected"),
    [
        ("threshold", "keep", [(1, 0), (1, 3), (2, 0), (2, 1), (2, 3)]),
        ("threshold", "drop", [(1, 0), (1, 3)]),
        ("threshold", "never_chosen", [(1, 0), (1, 3)]),
        ("best_vs_worst", "keep", [(2, 0)]),
        ("best_vs_worst", "drop", [(1, 0)]),
        ("best_vs_worst", "never_chosen", [(1, 0)]),
        ("annotation", "keep", [(0, 1), (2, 3)]),
        ("annotation", "drop", [(0, 1), (2, 3)]),
    ],
)
def test_truncated_completion_with_the_highest_reward(strategy, truncated, expected):
    config = PairsConfig(eta=0.85, strategy=strategy, truncated=truncated)
    assert chosen(select(CUT, config)) == expected


@pytest.mark.parametrize(
    ("strategy", "truncated", "expected"),
    [
        ("threshold", "keep", [(1, 0), (2, 0), (2, 1)]),
        ("threshold", "drop", [(2, 1)]),
        ("threshold", "never_chosen", [(1, 0), (2, 0), (2, 1)]),
        ("best_vs_worst", "keep", [(2, 0)]),
        ("best_vs_worst", "drop", [(2, 1)]),
        ("best_vs_worst", "never_chosen", [(2, 0)]),
    ],
)
def test_truncated_completion_with_the_lowest_reward(strategy, truncated, expected):
    found = select(
        candidates([[0.0, 4.0, 8.0]], cut=[(0, 0)]), PairsConfig(eta=0.85, strategy=strategy, truncated=truncated)
    )
    assert chosen(found) == expected


@pytest.mark.parametrize("truncated", ["drop", "never_chosen"])
@pytest.mark.parametrize("strategy", ["threshold", "best_vs_worst"])
def test_a_prompt_whose_completions_are_all_truncated_has_no_pair(strategy, truncated):
    config = PairsConfig(strategy=strategy, truncated=truncated)
    found = select(candidates([[0.0, 9.0], [0.0, 9.0]], cut=[(0, 0), (0, 1)]), config)
    assert as_set(found) == {(1, 1, 0)}


def test_best_against_worst_by_hand():
    rewards = np.array([[1.0, 3.0, 3.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0], [NAN, 5.0, NAN, 4.0, NAN], [NAN] * 5])
    assert as_set(best_against_worst(rewards, rewards)) == {(0, 1, 3), (2, 1, 3)}
    # eta and tau have no say: a gap of 0.01 is a pair.
    assert chosen(select(candidates([[0.0, 0.01]]), PairsConfig(strategy="best_vs_worst"))) == [(1, 0)]


def test_annotation_takes_the_data_sets_side_whatever_the_rewards():
    given = candidates([[0.0, 9.0, 3.0, NAN], [1.0, 2.0, NAN, NAN]], texts=[[0, 1, 2, 3], [4, 5, -1, -1]])
    assert as_set(annotated_pairs(given, AnnotationSettings())) == {(0, 0, 1), (0, 2, 3), (1, 0, 1)}
    assert as_set(select(given, PairsConfig(strategy="annotation"))) == {(0, 0, 1), (0, 2, 3), (1, 0, 1)}


@pytest.mark.parametrize("strategy", sorted(SETTINGS))
def test_identical_texts_are_never_paired(strategy):
    config = PairsConfig(strategy=strategy)
    assert select(candidates([[9.0, 0.0]], texts=[[1, 1]]), config).row.size == 0
    others = as_set(select(candidates([[9.0, 0.0]], texts=[[1, 2]]), config))
    assert others == {(0, 0, 1)} or (strategy, others) == ("shuffled", {(0, 1, 0)})


def test_identical_texts_take_no_place_under_the_cap():
    config = PairsConfig(eta=0.5, max_pairs_per_prompt=1)
    found = select(candidates([[9.0, 0.0, 1.0]], texts=[[1, 1, 2]]), config)
    assert chosen(found) == [(0, 2)]


def test_the_cap_holds_for_annotations():
    config = PairsConfig(strategy="annotation", max_pairs_per_prompt=1)
    assert chosen(select(candidates([[1.0, 0.0, 5.0, 0.0]]), config)) == [(2, 3)]


# Laws of all strategies

OF_REWARDS = sorted(SETTINGS.keys() - {"annotation"})


@pytest.mark.parametrize("strategy", OF_REWARDS)
def test_ties_and_single_completions_give_no_pair(strategy):
    config = PairsConfig(strategy=strategy, eta=0.5)
    nothing = [[3.0, 3.0, 3.0], [NAN, 1.0, NAN], [NAN, NAN, NAN]]
    assert select(candidates(nothing), config).row.size == 0
    assert select(candidates([[1.0], [2.0]]), config).row.size == 0
    assert as_set(select(candidates([*nothing, [9.0, NAN, 1.0]]), config)) in ({(3, 0, 2)}, {(3, 2, 0)})


@pytest.mark.parametrize("strategy", OF_REWARDS)
def test_a_constant_added_to_all_rewards_changes_nothing(strategy):
    rewards = np.random.default_rng(0).integers(-40, 40, (50, 9)) / 8  # sums are exact, ties are frequent
    config = PairsConfig(strategy=strategy, eta=0.7)
    expected = as_set(select(candidates(rewards), config))
    assert expected
    for shift in (-3.5, 1024.0):
        assert as_set(select(candidates(rewards + shift), config)) == expected


@pytest.mark.parametrize("strategy", sorted(SETTINGS))
@pytest.mark.parametrize("limit", [None, 1])
def test_a_prompts_pairs_depend_on_no_other_prompt(strategy, limit):
    rewards = np.random.default_rng(1).normal(size=(30, 8)) * 2
    table, config = candidates(rewards), PairsConfig(strategy=strategy, max_pairs_per_prompt=limit, seed=4)
    together = as_set(select(table, config))
    order = np.random.default_rng(2).permutation(30)
    moved = candidates(rewards[order])._replace(prompt_ids=table.prompt_ids.take(pa.array(order)))
    assert {(int(order[row]), j, i) for row, j, i in as_set(select(moved, config))} == together
    alone = candidates(rewards[7:8])._replace(prompt_ids=table.prompt_ids[7:8])
    assert {(7, j, i) for _, j, i in as_set(select(alone, config))} == {pair for pair in together if pair[0] == 7}


# Settings of a new strategy


class Finer(ThresholdSettings):
    """The threshold's settings and one more."""

    step: float = 0.1


class Clash(StrategySettings):
    """Has a field that another strategy has."""

    eta: float = 0.1


def test_settings_may_be_those_of_another_strategy_or_add_to_them():
    ours = [kind for kind in SETTINGS.values() if kind is not ThresholdSettings]  # others derive from these
    assert bases_of([*SETTINGS.values(), ThresholdSettings, StrategySettings]) == tuple(ours)
    assert Finer in bases_of([*ours, Finer])
    assert ThresholdSettings not in bases_of([*ours, Finer])


def test_a_field_of_two_strategies_is_refused():
    with pytest.raises(TypeError, match=r"Clash\.eta is a field of ThresholdSettings too"):
        bases_of([*SETTINGS.values(), Clash])


def test_a_strategy_without_settings_is_refused():
    with pytest.raises(TypeError, match="strategy mine: the function needs an argument `settings:"):
        settings_of("mine", needs_settings)


def needs_settings(candidates, config):
    return candidates
