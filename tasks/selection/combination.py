"""Several rewards of a completion as one: r = f(r_1, r_2, ...), each scaled, bounded and weighed. Pure numpy.

What depends on the whole table (means, deviations, functions of length) is fitted once, and kept with what it made.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.selection.length_fit import fit_length
from tasks.selection.terms import Combination, Term

Fits = dict[str, dict[str, Any]]
"""Name of a reward -> what was fitted for it: `mean` and `std`, or `tokens` and `predicted`, as plain numbers."""
NO_FITS: Fits = {}
JOINS: dict[str, Callable[..., np.ndarray]] = {
    "sum": lambda values, weights: np.tensordot(weights, values, 1),
    "min": lambda values, weights: (weights[:, None, None] * values).min(axis=0),
    "product": lambda values, weights: np.prod(values ** weights[:, None, None], axis=0),
}
"""`pairs.combine` -> function of (terms, n, k) values and (terms,) weights."""


ROUNDING = float(np.finfo(np.float32).eps)
"""Spread below which rewards are equal, as a share of the largest: they are kept as float32."""


class Columns(NamedTuple):
    """What rewards gave to completions."""

    rewards: Mapping[str, np.ndarray]
    """Name -> rewards, all of one shape; NaN: none. `name.1`, `name.2`, ... are the members of an ensemble."""
    lengths: np.ndarray
    """Tokens, of the same shape."""


class Combined(NamedTuple):
    """The rewards of some prompts' completions, (n, k) each; NaN where one of the rewards is missing."""

    reward: np.ndarray
    passes: np.ndarray
    """Whether no gate keeps the completion from being chosen."""
    raw: dict[str, np.ndarray]
    """Each reward as its source gave it, an ensemble as its bound."""
    terms: dict[str, np.ndarray]
    """Each reward that has a weight as it counts, before its weight."""


def members_of(name: str, columns: Iterable[str]) -> list[str]:
    """Return the columns of a reward: its own, or those of an ensemble's members, `name.1`, `name.2`, ..."""
    found = [column for column in columns if column.rpartition(".")[0] == name]
    return found or [column for column in columns if column == name]


def fit(combination: Combination, columns: Columns) -> Fits:
    """Fit what the terms need of a whole table.

    Args:
        combination: The terms.
        columns: Of all completions, (completions,) each.

    Raises:
        ConfigurationError: A reward has fewer than two different values, or completions have one length only.
    """
    return {
        name: _fit_term(name, term, _bound(term, name, columns), columns.lengths)
        for name, term in combination.counted.items()
    }


def combine(combination: Combination, columns: Columns, fits: Fits) -> Combined:
    """Make one reward of several.

    Args:
        combination: What each counts for.
        columns: Of the completions of n prompts, (n, k) each.
        fits: What `fit` returned.

    Raises:
        ConfigurationError: A product is asked for of a negative value, or of 0 to a negative power; or what is made is
            not finite in float32.
    """
    raw = {name: _bound(term, name, columns) for name, term in combination.rewards.items()}
    passes = np.ones(columns.lengths.shape, bool)
    for name, term in combination.rewards.items():
        if term.at_least is not None:
            passes &= ~(raw[name] < term.at_least)
    terms = {
        name: _value(term, raw[name], columns.lengths, fits.get(name, {})) for name, term in combination.counted.items()
    }
    if combination.combine == "product":
        _check_factors(combination.counted, terms)
    weights = np.array([term.weight for term in combination.counted.values()])
    with np.errstate(over="ignore", divide="ignore"):  # told below
        reward = JOINS[combination.combine](np.stack(list(terms.values())), weights)
    _check_finite(combination, reward)
    known = np.all([~np.isnan(values) for values in raw.values()], axis=0)
    return Combined(np.where(known, reward, np.nan), passes, raw, terms)


def _bound(term: Term, name: str, columns: Columns) -> np.ndarray:
    """Return the reward of a source, or mean - uncertainty * std over an ensemble's members; NaN where one has none."""
    own = members_of(name, columns.rewards)
    members = np.stack([np.asarray(columns.rewards[column], np.float64) for column in own])
    bound: np.ndarray = members.mean(axis=0) - (term.uncertainty * members.std(axis=0) if len(members) > 1 else 0.0)
    return bound


def _fit_term(name: str, term: Term, values: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = ~np.isnan(values)
    values, lengths = values[known], lengths[known]
    noise = ROUNDING * np.abs(values).max(initial=0.0)
    if term.length != "none":
        found = fit_length(name, term.length, values, lengths)
        values = values - _predicted(found, lengths)
    if term.scale == "standardised":
        if values.size < 2 or not values.std() > noise:
            raise ConfigurationError(
                f"pairs.rewards.{name}.scale = standardised needs two different rewards, and {values.size} completions "
                "have the same one or none: set scale to none, or score more completions"
            )
        found |= {"mean": float(values.mean()), "std": float(values.std())}
    return found


def _value(term: Term, values: np.ndarray, lengths: np.ndarray, found: Mapping[str, Any]) -> np.ndarray:
    """Return a reward as it counts, before its weight."""
    if term.length != "none":
        values = values - _predicted(found, lengths)
    if term.scale == "standardised":
        values = (values - found["mean"]) / found["std"]
    elif term.scale == "within_prompt":
        values = within_prompt(values)
    elif term.scale == "rank":
        values = ranks(values)
    return values if term.clip is None else np.clip(values, *term.clip)


def _predicted(found: Mapping[str, Any], lengths: np.ndarray) -> np.ndarray:
    predicted: np.ndarray = np.interp(lengths, found["tokens"], found["predicted"])
    return predicted


def within_prompt(values: np.ndarray) -> np.ndarray:
    """Return (n, k) values with mean 0 and standard deviation 1 in each row; 0 where all of a row are equal."""
    count = np.maximum((~np.isnan(values)).sum(axis=1, keepdims=True), 1)
    centred = values - np.nansum(values, axis=1, keepdims=True) / count
    spread = np.sqrt(np.nansum(centred**2, axis=1, keepdims=True) / count)
    equal = spread <= 1e-12 * np.maximum(np.nanmax(np.abs(np.nan_to_num(values)), axis=1, keepdims=True), 1e-300)
    return np.where(np.isnan(values), np.nan, np.where(equal, 0.0, centred / np.where(equal, 1.0, spread)))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the place of each of (n, k) values in its row: 0 the lowest, 1 the highest, ties in the middle.

    A row's only value is in the middle.
    """
    other = values[:, None, :]
    below, equal = (other < values[:, :, None]).sum(axis=2), (other == values[:, :, None]).sum(axis=2)
    most = (~np.isnan(values)).sum(axis=1, keepdims=True) - 1
    places = np.where(most > 0, (below + (equal - 1) / 2) / np.maximum(most, 1), 0.5)
    return np.where(np.isnan(values), np.nan, places)


def _check_finite(combination: Combination, reward: np.ndarray) -> None:
    if (np.abs(reward) > np.finfo(np.float32).max).any():
        weights = {name: term.weight for name, term in combination.counted.items()}
        raise ConfigurationError(
            f"pairs.combine = {combination.combine} with the weights {weights} gives {np.nanmax(np.abs(reward)):.4g} "
            "somewhere, which is not finite in float32: set their scale to rank, or lower the weights"
        )


def _check_factors(counted: Mapping[str, Term], terms: Mapping[str, np.ndarray]) -> None:
    """Refuse values that have no power: below 0, or 0 where the exponent is negative."""
    for name, term in counted.items():
        if (terms[name] < 0).any():
            raise ConfigurationError(
                f"pairs.combine = product needs rewards of 0 or more, and {name} is {np.nanmin(terms[name]):.4g} "
                f"somewhere: set pairs.rewards.{name}.scale to rank, clip it at 0, or combine by sum"
            )
        if term.weight < 0 and (terms[name] == 0).any():
            raise ConfigurationError(
                f"pairs.combine = product divides by {name}, since pairs.rewards.{name}.weight = {term.weight:g}, and "
                f"{name} is 0 somewhere: clip it above 0, or combine by sum"
            )
