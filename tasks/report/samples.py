"""What the policies said to the held-out prompts: chosen by rule, so that nobody picks them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.rewards import GOLD
from tasks.inspection.printable import printable
from tasks.report.blocks import Sample, Samples, Side
from tasks.store.artifacts import Artifact
from tasks.store.parquet import read_file

MOST = 10
"""Samples of a kind."""
LONGEST = 1500
"""Characters of a text that are shown."""
Messages = Mapping[str, Sequence[Mapping[str, str]]]


class Answers(NamedTuple):
    """The first completion of each policy to each prompt, in order of the gain."""

    policies: tuple[str, str]
    """The reference, and the policy that is compared with it."""
    reward: str
    """Name of the reward that is gained."""
    prompt_ids: list[str]
    completions: list[tuple[str, str]]
    """Of both policies."""
    rewards: np.ndarray
    """(prompts, 2)."""

    @property
    def gains(self) -> np.ndarray:
        """Return the reward of the policy less that of the reference, (prompts,), ascending."""
        gains: np.ndarray = self.rewards[:, 1] - self.rewards[:, 0]
        return gains


def read_answers(evaluation: Artifact) -> Answers | None:
    """Return the first completions of an evaluation with a reward on both sides; None where there are none."""
    reference, names = evaluation.stats["reference"], set(evaluation.stats["policies"])
    policies = (reference, sorted(names - {reference})[-1])
    rows = read_file(evaluation, "samples.parquet", "evaluation")
    named = rows["reward_name"].unique().to_pylist()
    reward = GOLD if GOLD in named else sorted(named)[0]
    first = rows.filter(pc.and_(pc.equal(rows["completion_id"], 0), pc.equal(rows["reward_name"], reward)))
    sides = [_by_prompt(first, policy) for policy in policies]
    both = sorted(sides[0].keys() & sides[1].keys())
    if not both:
        return None
    rewards = np.array([[side[prompt_id][1] for side in sides] for prompt_id in both])
    order = np.argsort(rewards[:, 1] - rewards[:, 0], kind="stable")
    texts = [(sides[0][both[i]][0], sides[1][both[i]][0]) for i in order]
    return Answers(policies, reward, [both[i] for i in order], texts, rewards[order])


def three_samples(answers: Answers, messages: Messages) -> list[Sample]:
    """Return the prompts with the median gain, the largest gain and the largest loss, each called what it is."""
    last = len(answers.prompt_ids) - 1
    best = "smallest loss" if answers.gains[last] < 0 else "largest gain"
    worst = "largest loss" if answers.gains[0] < 0 else "smallest gain"
    chosen = {"median gain": last // 2, best: last, worst: 0}
    return [_sample(answers, messages, place, name) for name, place in chosen.items()]


def to_leaf_through(answers: Answers, messages: Messages) -> list[Samples]:
    """Return the best, median, worst and random prompts by their gain, at most `MOST` each."""
    count = len(answers.prompt_ids)
    number = min(MOST, count)
    middle = (count - number) // 2
    random = np.random.default_rng(0).permutation(count)[:number]
    kinds: dict[str, Sequence[int]] = {
        "Random": random.tolist(),
        "Around the median gain": range(middle, middle + number),
        "Largest gains": range(count - 1, count - 1 - number, -1),
        "Smallest gains, or largest losses": range(number),
    }
    return [
        Samples(title, [_sample(answers, messages, place, "") for place in places]) for title, places in kinds.items()
    ]


def shortened(text: str) -> str:
    """Return a text that can be shown: printable, and cut with a note where it is long."""
    more = len(text) - LONGEST
    return printable(text[:LONGEST]) + (f" ... ({more:,} more characters)" if more > 0 else "")


def _sample(answers: Answers, messages: Messages, place: int, name: str) -> Sample:
    rewards, texts = answers.rewards[place], answers.completions[place]
    sides = [
        Side(policy, shortened(text), f"{reward:.3f}")
        for policy, text, reward in zip(answers.policies, texts, rewards, strict=True)
    ]
    prompt = [(m["role"], shortened(m["content"])) for m in messages.get(answers.prompt_ids[place], ())]
    gain = f"{answers.reward.replace('_', ' ')} {rewards[1] - rewards[0]:+.3f}"
    return Sample(prompt, sides, f"{name}: {gain}" if name else gain)


def _by_prompt(rows: pa.Table, policy: str) -> dict[str, tuple[str, float]]:
    """Return completion and reward by prompt_id of a policy's rows that have a reward."""
    own = rows.filter(pc.and_(pc.equal(rows["policy"], policy), pc.is_valid(rows["reward"])))
    columns = [own[name].to_pylist() for name in ("prompt_id", "completion", "reward")]
    return {prompt_id: (text, reward) for prompt_id, text, reward in zip(*columns, strict=True)}
