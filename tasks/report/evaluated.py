"""Did it get better: win rates, rewards before and after, by source and by length, and samples to read."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.rewards import GOLD
from tasks.evaluation.comparison import win_rate
from tasks.evaluation.tables import evaluation_head, evaluation_rows
from tasks.inspection.printable import printable
from tasks.report.along import along_the_way
from tasks.report.blocks import Block, Section, Table, Text, number
from tasks.report.facts import Facts
from tasks.report.plots import distributions
from tasks.report.samples import read_answers, to_leaf_through
from tasks.store.parquet import read_table

EVALUATION, PROMPTS = "evaluate_policy", "load_evaluation_prompts"
MOST_SOURCES = 12


def better_section(facts: Facts) -> Section | None:
    """Return the comparison of the policies; None where there is none yet."""
    rows = facts.table(EVALUATION, "samples.parquet", "evaluation")
    if rows is None:
        return None
    figures = facts.stats(EVALUATION)
    blocks: list[Block] = [
        Text(
            "Every policy answered the same held-out prompts. A win rate is how often an answer of the policy beats "
            f"one of {figures['reference']} to the same prompt, a tie counting half; in brackets 95% intervals over "
            "prompts."
        ),
        Table(evaluation_head(figures), evaluation_rows(figures)),
        *_distributions(rows, figures),
        *along_the_way(facts),
        *_parts(facts, rows, figures),
        *_samples(facts),
    ]
    return Section("Did it get better?", blocks)


def _distributions(rows: pa.Table, figures: Any) -> Iterator[Block]:
    """Yield a figure a reward: its distribution for the reference and the policy."""
    for reward in sorted(rows["reward_name"].unique().to_pylist()):
        own = rows.filter(pc.equal(rows["reward_name"], reward))
        values = {name: _values(own, name) for name in _policies(figures)}
        if all(each.size for each in values.values()):
            name = reward.replace("_", " ")
            yield distributions(values, f"reward by {name}", f"Rewards by {name} before and after")


def _parts(facts: Facts, rows: pa.Table, figures: Any) -> Iterator[Block]:
    """Yield the win rates by source of the prompt and by its length."""
    prompts = read_table(facts.artifacts[PROMPTS], ["prompt_id", "messages", "source"])
    ids = prompts["prompt_id"].to_pylist()
    lengths = [sum(len(message["content"]) for message in messages) for messages in prompts["messages"].to_pylist()]
    low, high = np.quantile(lengths, [1 / 3, 2 / 3])
    by_length = [
        f"up to {low:.0f}" if length <= low else f"up to {high:.0f}" if length <= high else f"above {high:.0f}"
        for length in lengths
    ]
    sources = [source.rpartition("/")[2] for source in prompts["source"].to_pylist()]
    for title, parts in (("source of the prompt", sources), ("length of the prompt in characters", by_length)):
        names = sorted(set(parts), key=lambda name: min(lengths[i] for i, part in enumerate(parts) if part == name))
        if 1 < len(names) <= MOST_SOURCES:
            part_of = dict(zip(ids, parts, strict=True))
            yield _part_table(title, names, part_of, rows, figures)


def _part_table(title: str, names: list[str], part_of: dict[str, str], rows: pa.Table, figures: Any) -> Table:
    """Return a table of win rates by the first reward that people ask for: gold where there is one."""
    rewards = rows["reward_name"].unique().to_pylist()
    reward = GOLD if GOLD in rewards else sorted(rewards)[0]
    own = rows.filter(pc.equal(rows["reward_name"], reward)).to_pylist()
    reference, policy = _policies(figures)
    body = []
    for name in names:
        sides = [
            _matrix([r for r in own if r["policy"] == side and part_of[r["prompt_id"]] == name])
            for side in (policy, reference)
        ]
        found = win_rate(sides[0], sides[1], 1000, 0) if all(side.size for side in sides) else None
        text = "none" if found is None else f"{found['win_rate']:.3f}  [{found['low']:.3f}, {found['high']:.3f}]"
        means = [number(float(np.nanmean(side))) if found is not None else "-" for side in reversed(sides)]
        body.append((printable(name), str(len(sides[0])), *means, text))
    head = (title, "prompts", f"mean reward, {reference}", f"mean reward, {policy}", f"win rate by {reward}")
    return Table(head, body)


def _matrix(rows: list[dict[str, Any]]) -> np.ndarray:
    """Return (prompts, k) rewards, prompts in order of their ids; no reward: NaN."""
    rows = sorted(rows, key=lambda row: (row["prompt_id"], row["completion_id"]))
    values = np.array([np.nan if row["reward"] is None else row["reward"] for row in rows])
    prompts = len({row["prompt_id"] for row in rows})
    return values.reshape(prompts, -1) if prompts else np.empty((0, 0))


def _policies(figures: Any) -> tuple[str, str]:
    reference = figures["reference"]
    return reference, sorted(figures["policies"].keys() - {reference})[-1]


def _values(rows: pa.Table, policy: str) -> np.ndarray:
    found: np.ndarray = rows.filter(pc.equal(rows["policy"], policy))["reward"].drop_null().to_numpy()
    finite: np.ndarray = found[np.isfinite(found)]
    return finite


def _samples(facts: Facts) -> Iterator[Block]:
    """Yield samples to leaf through."""
    answers = read_answers(facts.artifacts[EVALUATION])
    if answers is not None:
        prompts = read_table(facts.artifacts[PROMPTS], ["prompt_id", "messages"])
        messages = dict(zip(prompts["prompt_id"].to_pylist(), prompts["messages"].to_pylist(), strict=True))
        yield Text(
            "Samples: the first completion of each policy. The gain is the difference of their rewards; random ones "
            "are drawn with a fixed seed."
        )
        yield from to_leaf_through(answers, messages)
