"""Figures as SVG whose colours are the page's: they follow light and dark. matplotlib, without its global state."""

import functools
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import numpy as np

from tasks.pipeline.remembered import remembered
from tasks.report.blocks import Plot

P = ParamSpec("P")
STAND_INS = {
    "#010101": "var(--ink)",
    "#020202": "var(--grid)",
    "#030303": "var(--one)",
    "#040404": "var(--two)",
    "#050505": "var(--mark)",
    "#060606": "var(--three)",
    "#070707": "var(--four)",
    "#080808": "var(--five)",
}
"""Colour in matplotlib -> variable of the page's style sheet."""
INK, GRID, ONE, TWO, MARK, THREE, FOUR, FIVE = STAND_INS
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "rs-dpo",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.transparent": True,
}
BINS = 30


def drawn_once(plot: Callable[P, Plot]) -> Callable[P, Plot]:
    """Return a function that draws a figure of the same arguments once: a report is written again by every run."""

    @functools.wraps(plot)
    def found(*args: P.args, **kwargs: P.kwargs) -> Plot:
        given = hashlib.sha256(json.dumps([args, kwargs], default=_numbers).encode()).hexdigest()
        return Plot(**remembered(lambda: plot(*args, **kwargs)._asdict(), f"plot:{plot.__name__}", given))

    return found


def _numbers(value: np.ndarray | np.generic) -> Any:
    """Return numpy's numbers as JSON can write them."""
    return value.tolist()


@drawn_once
def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    caption: str,
    mark: tuple[float, str] | None = None,
    log_x: bool = False,
) -> Plot:
    """Draw lines.

    Args:
        series: Name -> x and y of its points.
        x: Label of the axis.
        y: Label of the axis.
        caption: What the figure is.
        mark: A place on the x axis, and what it is called.
        log_x: Space the x axis by ratios.
    """

    def draw(axes: Any) -> None:
        for colour, style, (name, points) in zip((ONE, TWO, MARK), ("-", "--", ":"), series.items(), strict=False):
            few = "o" if len(points[0]) <= 12 else ""
            axes.plot(*points, color=colour, linestyle=style, marker=few, markersize=3, label=name)
        if log_x:
            axes.set_xscale("log", base=2)
            ticks = next(iter(series.values()))[0]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        if mark is not None:
            axes.axvline(mark[0], color=MARK, linestyle=":", linewidth=1.2, label=mark[1])
        if len(series) > 1 or mark is not None:
            axes.legend()
        axes.grid(axis="y", linewidth=0.4)

    ends = "; ".join(f"{name}: from {ys[0]:.3g} to {ys[-1]:.3g}" for name, (_, ys) in series.items() if len(ys))
    return plot_of(draw, (x, y), caption, f"{caption}. {ends}")


@drawn_once
def distributions(values: Mapping[str, np.ndarray], x: str, caption: str) -> Plot:
    """Draw the distributions of several sets of numbers over each other.

    Args:
        values: Name -> finite numbers, at least one; two sets at most.
        x: What the numbers are.
        caption: What the figure is.
    """
    every = np.concatenate(list(values.values())).astype(np.float64)
    low, high = float(every.min()), float(every.max())
    if high - low <= 2 * BINS * np.spacing(max(abs(low), abs(high))):  # equal, but for the last bits
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    edges = np.linspace(low, high, BINS + 1)

    def draw(axes: Any) -> None:
        for colour, style, (name, own) in zip((ONE, TWO), ("-", "--"), values.items(), strict=False):
            weights = np.full(own.size, 1 / own.size)
            axes.hist(own, edges, weights=weights, color=colour, alpha=0.25)
            axes.hist(own, edges, weights=weights, color=colour, histtype="step", linestyle=style, linewidth=1.5)
            axes.axvline(float(own.mean()), color=colour, linestyle=style, linewidth=1, label=f"{name}, mean")
        axes.legend()

    means = "; ".join(f"{name}: mean {own.mean():.3g}, deviation {own.std():.3g}" for name, own in values.items())
    return plot_of(draw, (x, "share of completions"), caption, f"{caption}. {means}")


@drawn_once
def bars(
    edges: np.ndarray, counts: np.ndarray, x: str, y: str, caption: str, mark: tuple[float, str] | None = None
) -> Plot:
    """Draw a histogram that is counted already.

    Args:
        edges: (bins + 1,).
        counts: (bins,).
        x: What was counted.
        y: What the counts are of.
        caption: What the figure is.
        mark: A place on the x axis, and what it is called.
    """

    def draw(axes: Any) -> None:
        axes.stairs(counts, edges, color=ONE, fill=True, alpha=0.45)
        if mark is not None:
            axes.axvline(mark[0], color=MARK, linestyle="--", linewidth=1.4, label=mark[1])
            axes.legend()

    top = int(np.argmax(counts))
    alt = f"{caption}. {int(counts.sum()):,} {y}, most of them from {edges[top]:.3g} to {edges[top + 1]:.3g}"
    return plot_of(draw, (x, y), caption, alt)


@drawn_once
def reliability_diagram(said: np.ndarray, right: np.ndarray, pairs: np.ndarray, caption: str) -> Plot:
    """Draw how often a reward model is right against how sure it is; on the line both are the same.

    Args:
        said: (bins,) mean probability.
        right: (bins,) share that is right; NaN where a bin has no pair.
        pairs: (bins,) number of pairs.
        caption: What the figure is.
    """
    some = pairs > 0

    def draw(axes: Any) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=GRID, linewidth=1)
        sizes = 12 + 120 * pairs[some] / pairs.max()
        axes.scatter(said[some], right[some], s=sizes, color=ONE, alpha=0.7)
        axes.set_ylim(-0.03, 1.03)

    points = ", ".join(f"{s:.2f}: {r:.2f}" for s, r in zip(said[some], right[some], strict=True))
    return plot_of(draw, ("probability that the model gives", "share that is right"), caption, f"{caption}. {points}")


def plot_of(draw: Callable[[Any], None], labels: tuple[str, str], caption: str, alt: str, height: float = 2.9) -> Plot:
    """Return what a function draws as a figure.

    Args:
        draw: Called with matplotlib's axes.
        labels: Of the x and the y axis.
        caption: What the figure is.
        alt: What the figure shows, for whoever does not see it.
        height: Inches; the width is 5.4.
    """
    import matplotlib
    from matplotlib.figure import Figure

    sink = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return Plot(_inline(sink.getvalue()), alt, caption)


def _inline(svg: str) -> str:
    """Return an SVG file as an element of a page that has its own text alternative."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    return re.sub("|".join(STAND_INS), lambda found: STAND_INS[found[0]], svg)
