"""The reward model: how often it is right on held-out pairs, and whether it knows."""

import numpy as np

from tasks.report.blocks import Block, Section, Table, Text, number
from tasks.report.facts import Facts
from tasks.report.plots import bars, reliability_diagram
from tasks.report.preferences import source_table
from tasks.rewards.calibration import calibrating_tau, calibration_error, gaps_of, reliability

REWARD_MODEL = "train_reward_model"
NO_TAU = "none: never wrong, or no better than chance"


def reward_section(facts: Facts) -> Section | None:
    """Return the quality of the reward model; None where it is not there yet."""
    if REWARD_MODEL not in facts.artifacts:
        return None
    stats = facts.stats(REWARD_MODEL)
    sources = source_table(facts)
    blocks: list[Block] = [] if sources is None else [sources]
    if facts.config.reward_model.ready_model is not None:
        blocks.append(Text("The reward model was ready: no preferences were held out to measure it."))
    elif stats.get("accuracy") is None:
        blocks.append(Text("No preference pair was held out, so the reward model was not measured."))
    else:
        blocks += _measured(facts)
    if histogram := facts.stats("score_completions").get("histogram", {}).get("counts"):
        edges = facts.stats("score_completions")["histogram"]["edges"]
        blocks.append(bars(np.array(edges), np.array(histogram), "reward", "completions", "Rewards of all completions"))
    return Section("The reward model", blocks)


def _measured(facts: Facts) -> list[Block]:
    stats, tau = facts.stats(REWARD_MODEL), facts.config.pairs.tau
    interval = f"  [{stats['accuracy_low']:.3f}, {stats['accuracy_high']:.3f}]" if "accuracy_low" in stats else ""
    rows = [
        ("held-out pairs", f"{stats['held_out_pairs']:,}"),
        ("accuracy", number(stats["accuracy"]) + interval),
    ]
    rewards = facts.table(REWARD_MODEL, "held_out.parquet", "held_out_rewards")
    if rewards is None:
        return [Table(("reward model", ""), rows)]
    gaps = gaps_of(rewards)
    found, best = reliability(gaps, tau), calibrating_tau(gaps)
    rows += [
        (f"calibration error at tau {tau:g}", number(calibration_error(found))),
        ("tau that would calibrate it", number(best) if best is not None else NO_TAU),
    ]
    caption = f"How often it is right, by sigma(gap / tau) with tau {tau:g}; the larger, the more pairs"
    return [Table(("reward model", ""), rows), reliability_diagram(found.said, found.right, found.pairs, caption)]
