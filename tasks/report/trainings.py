"""How training went: what DPO, and the trainings before it, have logged."""

import math
from collections.abc import Iterator, Mapping

from tasks.report.blocks import Block, Plot, Section, Table, number
from tasks.report.facts import Facts
from tasks.report.plots import lines

DPO_CURVES: tuple[tuple[str, Mapping[str, str], str], ...] = (
    ("Loss of DPO", {"loss": "loss"}, "loss"),
    (
        "Pairs ranked right",
        {"pairs trained on": "rewards/accuracies", "held-out pairs": "held_out/accuracy"},
        "share of pairs",
    ),
    ("Margin", {"pairs trained on": "rewards/margins", "held-out pairs": "held_out/margin"}, "nats"),
    ("Log-probability of the chosen completions", {"chosen": "logps/chosen"}, "nats a completion"),
    ("Log-probability of the rejected completions", {"rejected": "logps/rejected"}, "nats a completion"),
    ("Gradient norm", {"norm": "grad_norm"}, "norm"),
    ("Learning rate", {"rate": "learning_rate"}, "learning rate"),
)
"""Caption, name -> metric of the log, unit."""
RLOO_CURVES: tuple[tuple[str, Mapping[str, str], str], ...] = (
    ("Reward of what RLOO draws", {"reward model": "reward"}, "reward"),
    ("KL of what RLOO draws", {"KL": "kl"}, "nats a token"),
    ("Entropy of what RLOO draws", {"entropy": "entropy"}, "nats a token"),
    ("Completions that RLOO draws", {"truncated": "completions/clipped_ratio"}, "share of completions"),
)
"""The same of the training that draws its own completions."""
STAGES = {"train_sft": "SFT", "train_reward_model": "reward model", "train_dpo": "DPO", "train_rloo": "RLOO"}


def training_section(facts: Facts) -> Section | None:
    """Return the curves of DPO or RLOO, and how each training ended; None where nothing was trained."""
    blocks: list[Block] = []
    rows = []
    for stage, name in STAGES.items():
        log = read_log(facts, stage)
        if "loss" in log:
            steps, losses = zip(*log["loss"], strict=True)
            rows.append((name, f"{max(steps):,}", number(losses[0]), number(losses[-1])))
    if rows:
        blocks.append(Table(("training", "steps", "first loss logged", "last loss logged"), rows))
    blocks += [*_curves(read_log(facts, "train_dpo"), DPO_CURVES), *_curves(read_log(facts, "train_rloo"), RLOO_CURVES)]
    if "loss" in (log := read_log(facts, "train_sft")):
        blocks.append(_line({"loss": log["loss"]}, "Loss of SFT", "loss"))
    return Section("How did training go?", blocks) if blocks else None


def read_log(facts: Facts, stage: str) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of each metric that a training has logged."""
    table = facts.table(stage, "training_log.parquet", "training_log")
    log: dict[str, list[tuple[int, float]]] = {}
    for row in table.to_pylist() if table is not None else ():
        log.setdefault(row["metric"], []).append((row["step"], row["value"]))
    return {metric: sorted(points) for metric, points in log.items()}


def _curves(
    log: Mapping[str, list[tuple[int, float]]], curves: tuple[tuple[str, Mapping[str, str], str], ...]
) -> Iterator[Plot]:
    for caption, metrics, unit in curves:
        if series := {name: log[metric] for name, metric in metrics.items() if metric in log}:
            yield _line(series, caption, unit)


def _line(series: Mapping[str, list[tuple[int, float]]], caption: str, unit: str) -> Plot:
    points = {name: tuple(zip(*own, strict=True)) for name, own in series.items()}
    values = [value for own in series.values() for _, value in own]
    if broken := sum(not math.isfinite(value) for value in values):  # a curve that ends, or no curve, says not why
        caption += f"; {broken:,} of {len(values):,} points are no numbers"
    return lines(points, "optimizer step", unit, caption)  # type: ignore[arg-type]  # two sequences a name
