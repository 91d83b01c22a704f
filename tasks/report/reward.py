"""The reward model: how often it is right on held-out pairs, and whether it knows."""

import numpy as np

from tasks.report.blocks import Block, Section, Table, Text, number
from tasks.report.facts import Facts
from tasks.report.plots import bars, reliability_diagram
from tasks.report.preferences import source_table
from tasks.rewards.calibration import calibrating_tau, calibration_error, gaps_of, reliability
from tasks.store.manifests import read_files
from tasks.store.parquet import read_file

REWARDS = "combine_rewards"
NO_TAU = "none: never wrong, or no better than chance"


def reward_section(facts: Facts) -> Section | None:
    """Return the quality of the reward models, and the rewards that pairs come from; None where none is there yet."""
    histogram = facts.stats(REWARDS).get("histogram", {})
    if not facts.reward_models and not histogram.get("counts"):
        return None
    sources = source_table(facts)
    blocks: list[Block] = [] if sources is None else [sources]
    blocks += [block for name in facts.reward_models for block in _model(facts, name)]
    if histogram.get("counts"):
        edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"])
        blocks.append(bars(edges, counts, "reward", "completions", "Rewards of all completions"))
    return Section("The reward" if len(facts.config.reward_names) > 1 else "The reward model", blocks)


def _model(facts: Facts, name: str) -> list[Block]:
    """Return what is known of a reward model."""
    stats, (config, _) = facts.reward_models[name].stats, facts.config.reward_models[name]
    label = name.replace("_", " ")
    if config.ready_model is not None:
        return [Text(f"The {label} was ready: no preferences were held out to measure it.")]
    if stats.get("accuracy") is None:
        return [Text(f"No preference pair was held out, so the {label} was not measured.")]
    return _measured(facts, name, label)


def _measured(facts: Facts, name: str, label: str) -> list[Block]:
    artifact, tau = facts.reward_models[name], facts.config.pairs.tau
    stats = artifact.stats
    interval = f"  [{stats['accuracy_low']:.3f}, {stats['accuracy_high']:.3f}]" if "accuracy_low" in stats else ""
    rows = [
        ("held-out pairs", f"{stats['held_out_pairs']:,}"),
        ("accuracy", number(stats["accuracy"]) + interval),
    ]
    if "held_out.parquet" not in read_files(artifact):
        return [Table((label, ""), rows)]
    gaps = gaps_of(read_file(artifact, "held_out.parquet", "held_out_rewards"))
    if not gaps.size:
        return [Table((label, ""), rows)]
    found, best = reliability(gaps, tau), calibrating_tau(gaps)
    rows += [
        (f"calibration error at tau {tau:g}", number(calibration_error(found))),
        ("tau that would calibrate it", number(best) if best is not None else NO_TAU),
    ]
    caption = f"How often it is right, by sigma(gap / tau) with tau {tau:g}; the larger, the more pairs"
    return [Table((label, ""), rows), reliability_diagram(found.said, found.right, found.pairs, caption)]
