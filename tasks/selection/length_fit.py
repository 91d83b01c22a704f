"""What the number of tokens alone predicts of a reward, fitted on a whole table: points, and straight lines between."""

from typing import Any

import numpy as np

from tasks.config.errors import ConfigurationError

DECILES = np.linspace(0, 1, 11)
MOST_KNOTS = 256
"""Most points of a function that is kept."""


def fit_length(name: str, kind: str, values: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    """Fit E[reward | tokens] by least squares.

    Args:
        name: The reward's, for the error.
        kind: `piecewise` or `monotone`.
        values: (completions,) rewards.
        lengths: (completions,) tokens.

    Returns:
        `tokens` and `predicted`, lists of equal length: straight lines lie between the points, and beyond them the
        function is flat.

    Raises:
        ConfigurationError: All completions have the same length.
    """
    if np.unique(lengths).size < 2:
        raise ConfigurationError(
            f"pairs.rewards.{name}.length = {kind} needs completions of different lengths, and {values.size} have one: "
            "set length to none"
        )
    tokens, predicted = (_piecewise if kind == "piecewise" else _monotone)(values, lengths)
    return {"tokens": [float(each) for each in tokens], "predicted": [float(each) for each in predicted]}


def _piecewise(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the deciles of the lengths and the values there of the best function that is straight in between."""
    knots = np.unique(np.quantile(lengths, DECILES))
    hats = np.stack([np.interp(lengths, knots, own) for own in np.eye(knots.size)], axis=1)
    predicted, *_ = np.linalg.lstsq(hats, values, rcond=None)
    return knots, predicted


def _monotone(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths and the values there of the best function that never falls (isotonic regression)."""
    from scipy.optimize import isotonic_regression

    tokens, place = np.unique(lengths, return_inverse=True)
    number = np.bincount(place)
    found = isotonic_regression(np.bincount(place, values) / number, weights=number).x
    if tokens.size > MOST_KNOTS:
        kept = np.unique(np.linspace(0, tokens.size - 1, MOST_KNOTS).round().astype(int))
        tokens, found = tokens[kept], found[kept]
    return tokens, found
