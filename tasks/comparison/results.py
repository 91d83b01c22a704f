"""What each run of an arm has left: how its models did on the held-out prompts, and what it cost."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.benchmarks.figures import Figure
from tasks.benchmarks.outcomes import stored_figures
from tasks.comparison.frontier import Curve, curve
from tasks.evaluation.along import in_order
from tasks.planning.costs import dpo_tokens
from tasks.store.artifacts import Artifact
from tasks.store.manifests import read_files, read_manifest
from tasks.store.parquet import read_file, read_table
from tasks.store.schemas import SCHEMAS
from tasks.training.snapshots import LAST

ALIGNED = "aligned"
LOG = "training_log.parquet"
NO_GAPS = np.empty(0)


class Model(NamedTuple):
    """A model along a training: its name (`step-N`, or `aligned` at the end), KL from the reference, and reward."""

    name: str
    kl: float
    reward: float


class Result(NamedTuple):
    """One arm under one seed."""

    arm: str
    seed: int
    models: list[Model]
    """In the order of the training."""
    reference: float
    """Mean reward of the reference."""
    rewards: np.ndarray
    """(prompts, k) of the aligned policy; NaN: none."""
    reference_rewards: np.ndarray
    """(prompts, k) of the reference."""
    reference_proxy: np.ndarray
    """(prompts, k) of the reference, by the reward model."""
    pairs: int
    """0 where the algorithm has none."""
    completions: int
    """Different completions that were trained on."""
    tokens: int
    """Tokens that the training was fed."""
    seconds: float
    """Seconds of the training, the reference's log-probabilities with it."""
    length: float
    """Mean tokens of the aligned policy's completions."""
    log: Mapping[str, Sequence[tuple[int, float]]] = MappingProxyType({})
    """Metric -> step and value, as the training has logged it."""
    gaps: np.ndarray = NO_GAPS
    """(pairs,) reward gaps of the pairs that were trained on; none where there are no pairs."""
    benchmarks: Sequence[Figure] = ()
    """What benchmarks found of the reference and of the aligned policy; none where none was asked for."""

    @property
    def curve(self) -> Curve:
        """Return the models as a curve of reward against KL."""
        return curve([(model.kl, model.reward) for model in self.models], self.reference)


def read_result(arm: str, seed: int, made: Mapping[str, Artifact], by: str, proxy: str) -> Result:
    """Return what a run has left, by one of its rewards.

    Args:
        arm: Name of the arm.
        seed: Its seed.
        made: What the run returned.
        by: Name of the reward.
        proxy: Name of the reward that its pairs were selected by.
    """
    evaluation, aligned = made["evaluation"], made["aligned"]
    figures, reference = evaluation.stats["policies"], evaluation.stats["reference"]
    along = dict(made["curve"].stats["policies"]) if made.get("curve") else {}
    steps, kept = [name for name in in_order(along) if name != LAST], aligned.stats.get("kept")
    steps = steps[: steps.index(kept)] if kept in steps else steps  # where the best model is kept, the arm ends there
    models = [(name, along[name]) for name in steps] + [(ALIGNED, figures[ALIGNED])]
    return Result(
        arm,
        seed,
        [Model(name, own["divergence"]["kl_sequence"], own["rewards"][by]["mean"]) for name, own in models],
        figures[reference]["rewards"][by]["mean"],
        _matrix(evaluation, ALIGNED, by),
        _matrix(evaluation, reference, by),
        _matrix(evaluation, reference, proxy),
        made["pairs"].rows if "pairs" in made else 0,
        aligned.stats["completions"],
        int(dpo_tokens(aligned) or 0),
        read_manifest(made.get("trained", aligned).uri).cost.get("seconds", 0.0),
        figures[ALIGNED]["mean_tokens"],
        _log(aligned),
        _gaps(made.get("pairs")),
        stored_figures(made["benchmarks"]) if "benchmarks" in made else (),
    )


def models_table(results: list[Result]) -> pa.Table:
    """Return a row for each model of each result."""
    rows = [
        {
            "arm": result.arm,
            "seed": result.seed,
            "model": model.name,
            "kl": model.kl,
            "reward": model.reward,
            "reference_reward": result.reference,
            "pairs": result.pairs,
            "completions": result.completions,
            "tokens": result.tokens,
            "seconds": result.seconds,
        }
        for result in results
        for model in result.models
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["comparison"])


def _log(aligned: Artifact) -> dict[str, list[tuple[int, float]]]:
    log: dict[str, list[tuple[int, float]]] = {}
    for row in read_file(aligned, LOG, "training_log").to_pylist() if LOG in read_files(aligned) else ():
        log.setdefault(row["metric"], []).append((row["step"], row["value"]))
    return {metric: sorted(points) for metric, points in log.items()}


def _gaps(pairs: Artifact | None) -> np.ndarray:
    if pairs is None:
        return NO_GAPS
    gaps: np.ndarray = read_table(pairs, ["reward_gap"])["reward_gap"].to_numpy().astype(np.float64)
    finite: np.ndarray = gaps[np.isfinite(gaps)]
    return finite


def _matrix(evaluation: Artifact, policy: str, reward: str) -> np.ndarray:
    """Return (prompts, k) rewards, prompts in the order of their ids."""
    rows = read_file(evaluation, "samples.parquet", "evaluation")
    own = rows.filter(pc.and_(pc.equal(rows["policy"], policy), pc.equal(rows["reward_name"], reward)))
    own = own.sort_by([("prompt_id", "ascending"), ("completion_id", "ascending")])
    values: np.ndarray = own["reward"].to_numpy(zero_copy_only=False).astype(np.float64)
    return values.reshape(len(own["prompt_id"].unique()), -1)
