"""The way of a training: what each reward gained at which KL from the reference, where models were kept along it."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.report.blocks import Plot
from tasks.report.facts import Facts
from tasks.report.plots import lines

ALIGNED = "aligned"


def along_the_way(facts: Facts) -> Iterator[Plot]:
    """Yield the curve of rewards against KL; nothing where no model was kept along the training.

    Gains are in standard deviations of the reference's rewards, so that rewards of any scale can be compared: where the
    reward that is optimised rises on and another one falls, the policy is over-optimised (arXiv:2210.10760).
    """
    if not facts.curve or "evaluate_policy" not in facts.artifacts:
        return
    figures, end = facts.curve.stats, facts.stats("evaluate_policy")["policies"]
    reference = figures["policies"][figures["reference"]]
    models = [own for name, own in figures["policies"].items() if name != figures["reference"]] + [end[ALIGNED]]
    models.sort(key=lambda own: float(own["divergence"]["kl_sequence"]))
    kl = [0.0, *(own["divergence"]["kl_sequence"] for own in models)]
    series = {
        name: (kl, [0.0, *(gain for own in models if (gain := _gain(own, reference, name)) is not None)])
        for name in sorted(reference["rewards"])
    }
    if whole := {name.replace("_", " "): points for name, points in series.items() if len(points[1]) == len(kl)}:
        caption = "Gain of each reward along the training, by KL from the reference"
        yield lines(whole, "KL (nats a completion)", "gain (standard deviations)", caption)


def _gain(own: Mapping[str, Any], reference: Mapping[str, Any], name: str) -> float | None:
    before, after = reference["rewards"][name], own["rewards"][name]
    if after["mean"] is None or not before["std"]:
        return None
    return float((after["mean"] - before["mean"]) / before["std"])
