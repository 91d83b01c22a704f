"""Everything that was found about rewards, as rows for a page, a console and a program."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tasks.config.rewards import GOLD
from tasks.quality.accuracy import (
    Accuracy,
    Calibration,
    Rewards,
    accuracy_of,
    calibration_of,
    gaps_by_category,
)
from tasks.quality.agreement import Agreement, ByPrompt, agreements
from tasks.quality.answers import ALL, Answers, PairedAnswers, SampledAnswers
from tasks.quality.best_of import BestOf, best_of_curves
from tasks.quality.bias import Bias
from tasks.quality.sections import section_scores
from tasks.quality.settings import JudgeRewardsConfig

ByReward = Mapping[str, Rewards]


class JudgedSet(NamedTuple):
    """A set that rewards were judged on."""

    set: str
    source: str
    prompts: int
    completions: int
    read: dict[str, Any]
    """Rows read, and how many were left out for which reason."""


class Section(NamedTuple):
    """What a reward gets in a section of RewardBench."""

    set: str
    reward: str
    section: str
    score: float
    subsets: int
    of: int


class Found(NamedTuple):
    """What was found, a list of rows each."""

    rewards: list[dict[str, Any]]
    """Name of each reward, the digests of what makes it."""
    sets: list[JudgedSet]
    accuracy: list[Accuracy]
    sections: list[Section]
    calibration: list[Calibration]
    agreement: list[Agreement]
    best_of: list[BestOf]
    bias: list[Bias]

    def as_json(self) -> dict[str, Any]:
        """Return the rows as JSON can write them."""
        return {name: [_plain(row) for row in rows] for name, rows in self._asdict().items()}


def set_row(name: str, answers: Answers) -> JudgedSet:
    """Return what a set has."""
    completions = sum(map(len, answers.completions.values()))
    return JudgedSet(name, answers.source, len(answers.prompts), completions, answers.read)


def quality_on_pairs(
    name: str, answers: PairedAnswers, rewards: ByReward, settings: JudgeRewardsConfig
) -> tuple[list[Accuracy], list[Section], list[Calibration]]:
    """Return how often each reward is right on a set of pairs, by category and section, and whether it knows."""
    accuracies, sections, calibrations = [], list[Section](), []
    for reward, own in rewards.items():
        gaps = gaps_by_category(answers, own)
        rows = [accuracy_of((name, category, reward), values) for category, values in gaps.items()]
        accuracies += rows if len(rows) > 2 else rows[:1]  # of one category, the set is all there is
        if settings.pairs[name].format == "rewardbench":
            known = {row.category: row.accuracy for row in rows if row.accuracy is not None}
            sections += [Section(name, reward, *score) for score in section_scores(known)]
        if (calibration := calibration_of((name, reward), gaps[ALL], settings.tau)) is not None:
            calibrations.append(calibration)
    return accuracies, sections, calibrations


def quality_on_samples(
    name: str, answers: SampledAnswers, rewards: ByReward, settings: JudgeRewardsConfig
) -> tuple[list[Agreement], list[BestOf]]:
    """Return how far rewards agree on a set of samples, and what best of n by each is worth."""
    sizes = {id_: len(texts) for id_, texts in answers.completions.items()}
    by: dict[str, ByPrompt] = {}
    if answers.gold:
        by[GOLD] = {id_: np.array(answers.gold[id_]) for id_ in sizes}
    for reward, own in rewards.items():
        by[reward] = {id_: np.array([own[id_, number] for number in range(size)]) for id_, size in sizes.items()}
    gold = settings.samples[name].held_out or GOLD
    return list(agreements(name, by, settings.seed)), best_of_curves(name, gold, by, settings.seed)


def _plain(value: Any) -> Any:
    """Return a row, and the rows within it, as a mapping."""
    return {name: _plain(item) for name, item in value._asdict().items()} if hasattr(value, "_asdict") else value
