"""What was trained on: from prompts to pairs, and what another tau, eta or k would have given."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tasks.report.blocks import Block, Section, Table, Text, number, share
from tasks.report.facts import Facts
from tasks.report.plots import bars, lines

PAIRS = "build_pairs"
LEFT_OUT = {
    "rejected_reward": "their worst completion's reward",
    "rejected_length": "their worst completion's length",
    "reward_gap": "their widest reward gap",
    "pass_rate": "their pass rate",
}
"""Reason for which a prompt gives no pair -> what it is called."""


def trained_on_section(facts: Facts) -> Section | None:
    """Return the way from prompts to pairs; None where there are no pairs yet."""
    stats = facts.stats(PAIRS)
    if not stats:
        return None
    blocks: list[Block] = [_funnel(facts, stats)]
    if "profile" in stats:
        blocks += _profile(stats["profile"], facts)
    return Section("What was trained on?", blocks)


def _funnel(facts: Facts, stats: Mapping[str, Any]) -> Table:
    profile, prompts, completions = stats.get("profile", {}), stats["prompts"], stats["completions"]
    possible, pairs = stats["possible_pairs"], facts.artifacts[PAIRS].rows
    rewards = facts.stats("combine_rewards")
    unread = next((rewards[name] for name in ("without", "too_long", "failed") if name in rewards), 0)

    def row(name: str, count: int, whole: int) -> tuple[str, str, str]:
        return name, f"{count:,}", share(_over(count, whole))

    left_out, before = stats.get("left_out_prompts", {}), stats.get("pairs_before_max_pairs")
    rows = [
        ("prompts", f"{prompts:,}", ""),
        ("completions", f"{completions:,}", f"{number(_over(completions, prompts), 1)} a prompt"),
        ("  different from the prompt's others", "", share(profile.get("unique_share"))),
        row("  cut at max_new_tokens", stats["truncated_completions"], completions),
        row("  without a reward (too long, or failed)", unread, completions),
        *(row(f"prompts left out by {LEFT_OUT[reason]}", count, prompts) for reason, count in left_out.items()),
        ("possible pairs", f"{possible:,}", ""),
        ("  of equal reward", "", share(profile.get("tie_share"))),
        *([] if before is None else [row("pairs before max_pairs", before, possible)]),
        row("pairs", pairs, possible),
        ("  whose chosen side is the longer one", "", share(profile.get("longer_chosen_share"))),
        row("prompts without a pair", stats["prompts_without_pair"], prompts),
    ]
    return Table(("from prompts to pairs", "number", "share"), rows)


def _profile(profile: Mapping[str, Any], facts: Facts) -> Iterator[Block]:
    tau, eta = facts.config.pairs.tau, facts.config.pairs.eta
    within, overall = profile["length_correlation_within_prompt"], profile["length_correlation"]
    yield Text(
        f"Correlation of reward and length: {number(within, 2)} within a prompt, {number(overall, 2)} over all. "
        f"{_rule(facts.config.pairs.strategy)} where its reward gap is above tau log(eta / (1 - eta)), "
        f"here {profile['gap_threshold']:.3f}."
    )
    if profile["gaps"]["counts"]:
        mark = (profile["gap_threshold"], f"tau {tau:g}, eta {eta:g}")
        yield bars(*_edges(profile["gaps"]), "reward gap", "possible pairs", "Reward gaps of all possible pairs", mark)
    if profile["spreads"]["counts"]:
        caption = "Spread of the rewards of a prompt"
        yield bars(*_edges(profile["spreads"]), "standard deviation of a prompt's rewards", "prompts", caption)
    yield _grid(profile, tau, eta)
    yield from _by_gap(profile)
    yield from _k_curve(profile["k_curve"])


def _rule(strategy: str) -> str:
    """Return how the sentence on tau and eta begins: they decide nothing where another strategy has selected."""
    if strategy == "threshold":
        return "tau and eta are one axis: a pair is kept"
    words = strategy.replace("_", " ")
    return f"The pairs of this run are those of {words}; the threshold rule, told of below, keeps a pair"


def _grid(profile: Mapping[str, Any], tau: float, eta: float) -> Table:
    """Return the pairs above the threshold for each tau and eta, before `max_pairs_per_prompt` and equal texts."""
    points = {(point["tau"], point["eta"]): point["pairs"] for point in profile["grid"]}
    taus, etas = (sorted({key[axis] for key in points}) for axis in (0, 1))
    possible = profile["possible_pairs"]

    def cell(t: float, e: float) -> str:
        marked = "*" if (t, e) == (tau, eta) else ""
        return f"{marked}{points[t, e]:,} ({share(_over(points[t, e], possible))})"

    rows = [(f"tau {t:g}", *(cell(t, e) for e in etas)) for t in taus]
    caption = (
        "Pairs above other thresholds, and their share of the possible ones, before max_pairs_per_prompt; marked: what "
        "is configured"
    )
    return Table(("", *(f"eta {e:g}" for e in etas)), rows, caption)


def _by_gap(profile: Mapping[str, Any]) -> Iterator[Block]:
    found = sorted({(point["gap"], point["pairs"]) for point in profile["grid"]})
    if found and found[0][1]:
        gaps, pairs = zip(*found, strict=True)
        mark = (profile["gap_threshold"], "configured")
        yield lines(
            {"pairs": (gaps, pairs)}, "reward gap asked for", "pairs", "Pairs by the gap that is asked for", mark
        )


def _k_curve(points: list[dict[str, Any]]) -> Iterator[Block]:
    kept = [point for point in points if point["best_reward"] is not None]
    if len(kept) > 1:
        ks = [point["k"] for point in kept]
        pairs, best = ([point[name] for point in kept] for name in ("pairs", "best_reward"))
        yield lines(
            {"pairs": (ks, pairs)}, "k", "pairs", "Pairs above the threshold with fewer completions", log_x=True
        )
        caption = "Mean reward of a prompt's best completion, of k"
        yield lines({"best": (ks, best)}, "k", "reward", caption, log_x=True)


def _edges(histogram: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    counts = np.array(histogram["counts"])
    return np.arange(counts.size + 1) * histogram["width"], counts


def _over(part: float, whole: float) -> float | None:
    return part / whole if whole else None
