"""Which constraints each policy keeps, kind by kind: read from an evaluation on instructions."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from tasks.config.rewards import GOLD
from tasks.data.prompt_table import PromptTable
from tasks.evaluation.intervals import bootstrap_interval
from tasks.rewards.constraints import kept, read_constraints
from tasks.rewards.functions import metadata_of
from tasks.store.artifacts import Artifact
from tasks.store.parquet import read_file

ALL = "all constraints"
Kept = Mapping[tuple[str, str], np.ndarray]
"""Kind of a constraint and policy -> (prompts,) share of each prompt's completions that keep it, by prompt_id."""


def read_kept(evaluation: Artifact, prompts: Artifact) -> Kept:
    """Judge each completion of an evaluation; under `ALL` stand the shares of a prompt's constraints."""
    table = PromptTable(prompts)
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_file(evaluation, "samples.parquet", "evaluation").to_pylist():
        if row["reward_name"] != GOLD:
            continue
        policy, prompt_id = row["policy"], row["prompt_id"]
        given = kept(read_constraints(metadata_of(table.metadata(prompt_id))), row["completion"])
        for kind, is_kept in given.items():
            found[kind, policy][prompt_id].append(is_kept)
        found[ALL, policy][prompt_id].append(row["reward"])
    return {name: np.array([np.mean(own[prompt_id]) for prompt_id in sorted(own)]) for name, own in found.items()}


def kept_rows(found: Kept, before: str, after: str, samples: int, seed: int) -> list[tuple[str, ...]]:
    """Return a row a kind: its prompts, the rates of both policies, and the gain with its 95% interval over prompts."""
    rows = []
    for kind in sorted({kind for kind, _ in found}, key=lambda name: (name == ALL, name)):
        sides = found[kind, before], found[kind, after]
        gains = sides[1] - sides[0]
        low, high = bootstrap_interval(gains, np.mean, samples, seed)
        rates = [f"{side.mean():.3f}" for side in sides]
        rows.append((kind, str(gains.size), *rates, f"{gains.mean():+.3f}  [{low:+.3f}, {high:+.3f}]"))
    return rows
