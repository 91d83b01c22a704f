"""What people read: a stage's page in Prefect's UI, and the table at the end of a run. Pure text."""

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.artifacts import Artifact, Provenance

BAR = 40
FIGURES = (
    ("gold_mean", "gold reward", "{:.3f}"),
    ("gold_std", "  standard deviation", "{:.3f}"),
    ("reward_mean", "reward model", "{:.3f}"),
    ("reward_std", "  standard deviation", "{:.3f}"),
    ("mean_tokens", "completion length (tokens)", "{:.1f}"),
    ("distinct_2", "distinct-2", "{:.3f}"),
    ("truncation_rate", "cut at max_new_tokens", "{:.1%}"),
)
"""Figure of one policy, its label, its format."""


def evaluation_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (label, SFT, RS-DPO) for every figure of an evaluation."""
    sft, aligned = figures["sft"], figures["aligned"]
    rows = [(label, form.format(sft[name]), form.format(aligned[name])) for name, label, form in FIGURES if name in sft]
    for by, label in (("gold", "win rate by gold reward"), ("reward", "win rate by reward model")):
        if by in figures:
            win = figures[by]
            theirs = _interval(1 - win["win_rate"], 1 - win["high"], 1 - win["low"])
            rows.append((label, theirs, _interval(win["win_rate"], win["low"], win["high"])))
            rows.append(("  ties", "", f"{win['ties']:.1%}"))
    divergence = figures["divergence"]
    rows.append(("KL from pi_SFT a sequence (nats)", "", f"{divergence['kl_sequence']:.3f}"))
    rows.append(("KL from pi_SFT a token (nats)", "", f"{divergence['kl_token']:.4f}"))
    return rows


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f}  [{low:.3f}, {high:.3f}]"


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
