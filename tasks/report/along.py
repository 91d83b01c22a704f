"""The way of a training: what each reward gained at which KL from the reference, where models were kept along it."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.config.rewards import COMBINED
from tasks.evaluation.along import read_falls
from tasks.report.blocks import Plot
from tasks.report.facts import Facts
from tasks.report.plots import lines
from tasks.store.parquet import read_file
from tasks.training.snapshots import LAST

ALIGNED, EVALUATION = "aligned", "evaluate_policy"


def along_the_way(facts: Facts) -> Iterator[Plot]:
    """Yield the curve of rewards against KL; nothing where no model was kept along the training.

    Gains are in standard deviations of the reference's rewards, so that rewards of any scale can be compared: where the
    reward that is optimised rises on and another one falls, the policy is over-optimised (arXiv:2210.10760).
    """
    if not facts.curve or EVALUATION not in facts.artifacts:
        return
    figures, end = facts.curve.stats, facts.stats(EVALUATION)["policies"]
    reference = figures["policies"][figures["reference"]]
    models = [own for name, own in figures["policies"].items() if name != figures["reference"]]
    models += [] if LAST in figures["policies"] else [end[ALIGNED]]
    models.sort(key=lambda own: float(own["divergence"]["kl_sequence"]))
    kl = [0.0, *(own["divergence"]["kl_sequence"] for own in models)]
    series = {
        name: (kl, [0.0, *(gain for own in models if (gain := _gain(own, reference, name)) is not None)])
        for name in sorted(reference["rewards"])
    }
    if whole := {name.replace("_", " "): points for name, points in series.items() if len(points[1]) == len(kl)}:
        caption = "Gain of each reward along the training, by KL from the reference"
        yield lines(whole, "KL (nats a completion)", "gain (standard deviations)", caption)


def falls_along(facts: Facts) -> dict[str, Any]:
    """Return how far held-out rewards have fallen along the training; nothing where no model was kept along it."""
    if not facts.curve or EVALUATION not in facts.artifacts:
        return {}
    config = facts.config
    both = (facts.curve, facts.artifacts[EVALUATION])
    curve, end = ((read_file(made, "samples.parquet", "evaluation"), made.stats) for made in both)
    return read_falls(curve, end, config.proxy, [*config.selecting, COMBINED])


def _gain(own: Mapping[str, Any], reference: Mapping[str, Any], name: str) -> float | None:
    before, after = reference["rewards"][name], own["rewards"][name]
    if after["mean"] is None or not before["std"]:
        return None
    return float((after["mean"] - before["mean"]) / before["std"])
