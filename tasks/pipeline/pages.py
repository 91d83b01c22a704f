"""What people read: a stage's page in Prefect's UI, and the table at the end of a run. Pure text."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.store.artifacts import Artifact, Provenance

BAR = 40
REWARDS = (("gold", "gold reward"), ("reward", "reward model"))
FINISHED = "  without truncated completions"


def evaluation_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (label, SFT, RS-DPO) for every figure of an evaluation."""
    sides, without = (figures["sft"], figures["aligned"]), figures["without_truncated"]
    finished = (without["sft"], without["aligned"])
    any_truncated, rows = any(side["truncated"] for side in sides), []
    for name, label in REWARDS:
        if name in figures:
            rows.append(_row(label, sides, f"%({name}_mean).3f"))
            rows.append(_row("  standard deviation", sides, f"%({name}_std).3f"))
            rows += [_row(FINISHED, finished, f"%({name}_mean).3f")] if any_truncated else []
    rows.append(_row("completion length (tokens)", sides, "%(mean_tokens).1f"))
    rows.append(_row("distinct-2", sides, "%(distinct_2).3f"))
    rows.append(_row("truncated at max_new_tokens", sides, "%(truncated)d of %(completions)d"))
    for name, label in REWARDS:
        if name in figures:
            rows += _win_rows(f"win rate by {label}", figures[name])
            rows += _win_rows(_prompts_of(without), without[name])[:1] if any_truncated else []
    return rows + _kl_rows(figures["divergence"])


def _row(label: str, sides: tuple[Any, Any], form: str) -> tuple[str, str, str]:
    """Return both policies' figures in a form such as "%(reward_mean).3f"; "none" where one in the form is None."""
    names = re.findall(r"%\((\w+)\)", form)
    sft, aligned = ("none" if None in map(side.get, names) else form % side for side in sides)
    return (label, sft, aligned)


def _prompts_of(without: Mapping[str, Any]) -> str:
    left_out = without["prompts_left_out"]
    return f"{FINISHED} ({left_out} prompts left out)" if left_out else FINISHED


def _win_rows(label: str, win: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    if win is None:
        return [(label, "none", "none")]
    theirs = _interval(1 - win["win_rate"], 1 - win["high"], 1 - win["low"])
    ours = _interval(win["win_rate"], win["low"], win["high"])
    return [(label, theirs, ours), ("  ties", "", f"{win['ties']:.1%}")]


def _kl_rows(divergence: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name, digits in (("sequence", 3), ("token", 4)):
        value, low, high = (divergence[f"kl_{name}{bound}"] for bound in ("", "_low", "_high"))
        rows.append((f"KL from pi_SFT a {name} (nats)", "", _interval(value, low, high, digits)))
    drawn = f"{divergence['completions']}, {divergence['truncated']} truncated"
    return [*rows, ("  completions drawn at temperature 1", "", drawn)]


def _interval(value: float, low: float, high: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}  [{low:.{digits}f}, {high:.{digits}f}]"


def stage_page(provenance: Provenance, artifact: Artifact) -> str:
    """Return a stage's page in Markdown: what it read, what it wrote, its counts, histogram and evaluation."""
    stats = dict(artifact.stats)
    lines = [
        f"# {provenance.stage}",
        "",
        f"Wrote **{artifact.kind}**, {artifact.rows:,} rows, to `{artifact.uri}`",
        "",
        *_table(("read", "digest"), provenance.inputs.items()),
    ]
    if "sft" in stats and "divergence" in stats:
        lines += _table(("held-out prompts", "SFT", "RS-DPO"), evaluation_rows(stats))
    else:
        histogram = stats.pop("histogram", None)
        lines += _table(("count", "value"), ((name, _value(value)) for name, value in stats.items()))
        lines += _histogram(histogram) if histogram else []
    settings = (
        (f"{section}.{name}", value) for section, fields in provenance.config.items() for name, value in _items(fields)
    )
    lines += _table(("setting", "value"), ((name, f"`{value}`") for name, value in settings))
    return "\n".join([*lines, f"digest `{artifact.digest}`, key `{provenance.key}`"])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *body, ""] if body else []


def _cell(value: str) -> str:
    """Keep a value within its cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "&#124;")


def _histogram(histogram: Mapping[str, list[float]]) -> list[str]:
    counts, edges = histogram["counts"], histogram["edges"]
    top = max(counts, default=0) or 1
    bars = [
        f"{low:10.3f} .. {high:10.3f} {int(count):8,} {'#' * round(BAR * count / top)}"
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return ["Rewards:", "```", *bars, "```", ""]


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _items(fields: Any) -> Iterable[tuple[str, Any]]:
    return fields.items() if isinstance(fields, Mapping) else [("value", fields)]
