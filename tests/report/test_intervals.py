"""Figures of many things: what they say in words, and that many names stay readable."""

import re

import numpy as np

from tasks.report.intervals import FEW, bands, forest, whiskers

POINTS = (np.array([1.0, 2.0]), np.array([0.5, 0.75]), np.array([0.4, -np.inf]), np.array([0.6, np.inf]))


def height(plot):
    return float(re.search(r'viewBox="0 0 \S+ (\S+)"', plot.svg)[1])


def test_whiskers_are_told_in_words_and_an_infinite_one_is_not_drawn():
    plot = whiskers({"a": POINTS}, "x", "y", "Caption")
    assert plot.alt == "Caption. a: 0.5 [0.4, 0.6] at 1, 0.75 [-inf, inf] at 2"
    assert "nan" not in plot.svg
    assert "inf" not in plot.svg


def test_many_curves_are_named_below_in_a_higher_figure():
    few, many = (
        bands({f"arm {number}": (POINTS[0], POINTS[1], POINTS[1], POINTS[1]) for number in range(count)}, "x", "y", "c")
        for count in (FEW, 4 * FEW)
    )
    assert height(many) > height(few)
    assert (few.caption, many.caption) == ("c", "c; bands left out")
    assert all(f"arm {number}<" in many.svg for number in range(4 * FEW))


def test_a_forest_grows_with_its_rows():
    one, many = (forest([(f"pair {n}", 0.1, -0.1, 0.3) for n in range(count)], "x", "c") for count in (2, 78))
    assert height(many) > 3 * height(one)
