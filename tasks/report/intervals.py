"""Figures of many things at once, each with an interval: curves with bands, means with whiskers, differences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.report.blocks import Plot
from tasks.report.plots import FIVE, FOUR, GRID, INK, MARK, ONE, THREE, TWO, plot_of

COLOURS = (TWO, ONE, MARK, THREE, FOUR, FIVE)
STYLES = ("-", "--", ":", "-.")
HEIGHT, ROW = 2.9, 0.15
"""Inches of a figure, and of a row that is added to it."""
FEW = 6
"""Curves whose bands and names a figure has room for."""
Curves = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
"""Name -> x, y, low and high of its points."""


def bands(series: Curves, x: str, y: str, caption: str, mark: tuple[float, str] | None = None) -> Plot:
    """Draw lines with a band around each; of more than `FEW`, the lines alone, and their names below.

    Args:
        series: Name -> x, y, low and high of its points.
        x: Label of the axis.
        y: Label of the axis.
        caption: What the figure is.
        mark: A place on the x axis, and what it is called.
    """

    def draw(axes: Any) -> None:
        for number, (name, (at, middle, low, high)) in enumerate(series.items()):
            colour, style = _look(number)
            if len(series) <= FEW:
                axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(at, middle, color=colour, linestyle=style, label=name)
        if mark is not None:
            axes.axvline(mark[0], color=INK, linestyle=":", linewidth=1, label=mark[1])
        _name(axes, len(series))
        axes.grid(axis="y", linewidth=0.4)

    if len(series) > FEW:
        caption += "; bands left out"
    ends = "; ".join(f"{name}: {middle[-1]:.3g} at {at[-1]:.3g}" for name, (at, middle, *_) in series.items())
    return plot_of(draw, (x, y), caption, f"{caption}. {ends}", _height(len(series)))


def whiskers(series: Curves, x: str, y: str, caption: str) -> Plot:
    """Draw points with an interval each, joined in their order.

    Args:
        series: Name -> x, y, low and high of its points; an infinite interval is left out.
        x: Label of the axis.
        y: Label of the axis.
        caption: What the figure is.
    """

    def draw(axes: Any) -> None:
        for number, (name, (at, middle, low, high)) in enumerate(series.items()):
            colour, style = _look(number)
            axes.plot(at, middle, "o", color=colour, linestyle=style, linewidth=0.8, markersize=4, label=name)
            known = np.isfinite(low) & np.isfinite(high)
            axes.vlines(at[known], low[known], high[known], color=colour, linewidth=1.4)
        if len(series) > 1:
            _name(axes, len(series))
        axes.grid(axis="y", linewidth=0.4)

    told = "; ".join(f"{name}: {_told(*points)}" for name, points in series.items())
    return plot_of(draw, (x, y), caption, f"{caption}. {told}", _height(len(series)))


def forest(rows: Sequence[tuple[str, float, float, float]], x: str, caption: str) -> Plot:
    """Draw an interval a row, and the line of no difference.

    Args:
        rows: What is compared, and mean, low and high of the difference.
        x: What the differences are of.
        caption: What the figure is.
    """

    def draw(axes: Any) -> None:
        for place, (_, mean, low, high) in enumerate(reversed(rows)):
            colour = GRID if low <= 0 <= high else TWO
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot([mean], [place], "o", color=colour, markersize=4)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], fontsize=7)
        axes.set_ylim(-1, len(rows))

    told = "; ".join(f"{name}: {mean:.3g} [{low:.3g}, {high:.3g}]" for name, mean, low, high in rows)
    return plot_of(draw, (x, ""), caption, f"{caption}. {told}", max(HEIGHT, 0.6 + ROW * len(rows)))


def _look(number: int) -> tuple[str, str]:
    """Return colour and style of a curve."""
    return COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]


def _told(at: np.ndarray, middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    rows = zip(at, middle, low, high, strict=True)
    return ", ".join(f"{mean:.3g} [{below:.3g}, {above:.3g}] at {place:.4g}" for place, mean, below, above in rows)


def _height(curves: int) -> float:
    return HEIGHT if curves <= FEW else HEIGHT + ROW * math.ceil(curves / 2)


def _name(axes: Any, curves: int) -> None:
    """Name the curves: within the axes, or below them where they are many."""
    if curves <= FEW:
        axes.legend(fontsize=7)
    else:
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=7)
