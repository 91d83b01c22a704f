"""An evaluation as a table that people read: a row a figure, a column a policy. Pure text."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.pipeline.pages import markdown_table
from tasks.store.artifacts import Artifact

FINISHED = "  without truncated completions"
Row = tuple[str, ...]


def evaluation_head(figures: Mapping[str, Any]) -> Row:
    """Return the head of the table: the number of prompts, and the policies, the reference first."""
    return (f"{figures['prompts']} held-out prompts", *_names(figures))


def evaluation_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Return a label and each policy's value for every figure of an evaluation; the reference is compared with none."""
    policies = [figures["policies"][name] for name in _names(figures)]
    any_truncated = any(policy["truncated"] for policy in policies)
    columns = [list(_figures(policy, figures["reference"], any_truncated)) for policy in policies]
    return [(rows[0][0], *(value for _, value in rows)) for rows in zip(*columns, strict=True)]


def evaluation_page(artifact: Artifact) -> list[str]:
    """Return an evaluation as Markdown."""
    return markdown_table(evaluation_head(artifact.stats), evaluation_rows(artifact.stats))


def _names(figures: Mapping[str, Any]) -> list[str]:
    reference = figures["reference"]
    return [reference, *(name for name in sorted(figures["policies"]) if name != reference)]


def _figures(policy: Mapping[str, Any], reference: str, any_truncated: bool) -> Iterator[tuple[str, str]]:
    """Yield label and value of each of a policy's figures: the same labels for every policy."""
    for name, reward in sorted(policy["rewards"].items()):
        yield f"mean reward by {_words(name)}", _number(reward["mean"])
        yield "  standard deviation", _number(reward["std"])
        if any_truncated:
            yield FINISHED, _number(policy["finished"][name]["mean"])
    yield "completion length (tokens)", f"{policy['mean_tokens']:.1f}"
    yield "distinct-2", _number(policy["distinct_2"])
    if "repetition" in policy:  # an evaluation of an earlier release has neither
        yield "repeated 3-grams within a completion", f"{policy['repetition']:.1%}"
        yield f"perplexity under {reference}", f"{math.exp(policy['reference_nll']):.2f}"
    yield "truncated at max_new_tokens", f"{policy['truncated']} of {policy['completions']}"
    for name in sorted(policy["rewards"]):
        win, finished = (policy.get(kind, {name: {}})[name] for kind in ("win_rates", "finished_win_rates"))
        yield f"win rate over {reference} by {_words(name)}", _interval(win, "win_rate", "low", "high")
        yield "  ties", f"{win['ties']:.1%}" if win else ""
        if any_truncated:
            yield FINISHED, _interval(finished, "win_rate", "low", "high")
            yield "  prompts compared", str(finished["prompts"]) if finished else ""
    kl = policy.get("divergence", {})
    for part, digits in (("sequence", 3), ("token", 4)):
        yield f"KL from {reference} a {part} (nats)", _interval(kl, *(f"kl_{part}{x}" for x in BOUNDS), digits=digits)
    yield "  completions drawn at temperature 1", f"{kl['completions']}, {kl['truncated']} truncated" if kl else ""


BOUNDS = ("", "_low", "_high")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _interval(figures: Mapping[str, float] | None, *names: str, digits: int = 3) -> str:
    """Return a figure with its interval; "none" where there is none; nothing for the reference, which has none."""
    if figures is None:
        return "none"
    return "{}  [{}, {}]".format(*(f"{figures[name]:.{digits}f}" for name in names)) if figures else ""
