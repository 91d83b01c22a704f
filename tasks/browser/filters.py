"""Which prompts of a run are asked for: what a form says, as SQL with its values apart."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tasks.config.errors import ConfigurationError

RANGES = {"gap": "widest reward gap", "reward": "mean reward", "length": "mean tokens"}
"""Column -> what it is; a form has its bounds as `gap_from` and `gap_to`."""


class Flag(NamedTuple):
    """Something that a prompt is watched for."""

    sql: str
    meaning: str


FLAGS = {
    "no pair": Flag("pairs = 0", "no pair was kept"),
    "truncated": Flag("truncated > 0", "a completion was cut at max_new_tokens"),
    "repeats": Flag("repeating > 0", "a completion repeats its own 3-grams of tokens"),
    "ties": Flag("scored = k AND rewards < texts", "different completions have the same reward"),
    "alike": Flag("k > 1 AND 2 * texts <= k", "half of the completions or more are copies of others"),
    "longer chosen": Flag("pairs > 0 AND longer = pairs", "in every pair the chosen completion is the longer one"),
    "no reward": Flag("scored < k", "a completion has no reward"),
}
"""Monitor -> when it fires, over the columns of an index's table `prompts`. Another monitor is another line."""

_NAMED = ", ".join(f"CASE WHEN {flag.sql} THEN '{name}' END" for name, flag in FLAGS.items())
FLAGS_SQL = f"list_filter([{_NAMED}], lambda name: name IS NOT NULL) AS flags"
"""The names of the monitors that fire, as a column of a query."""
ORDERS = {
    "as drawn": "place",
    "widest gap": "gap DESC NULLS LAST, place",
    "narrowest gap": "gap NULLS LAST, place",
    "highest reward": "reward DESC NULLS LAST, place",
    "lowest reward": "reward NULLS LAST, place",
    "longest": "length DESC NULLS LAST, place",
    "most pairs": "pairs DESC, place",
}
"""Name -> SQL."""
PLACES = {"prompt": "contains(searched, lower(?))", "completions": "place IN (SELECT place FROM {db}.samples WHERE %s)"}
_IN_COMPLETION = "contains(completion, ?)"


class Filters(NamedTuple):
    """What a form asks for; every field is as it was typed."""

    source: str = ""
    text: str = ""
    within: str = "prompt"
    flag: str = ""
    order: str = "as drawn"
    gap_from: str = ""
    gap_to: str = ""
    reward_from: str = ""
    reward_to: str = ""
    length_from: str = ""
    length_to: str = ""

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL, and its values.

        Raises:
            ConfigurationError: A bound is no number, or there is no such monitor, order or place to look in.
        """
        _check("monitor", self.flag, ["", *FLAGS])
        _check("order", self.order, ORDERS)
        _check("place of the text", self.within, PLACES)
        conditions, values = ["true"], list[Any]()
        if self.source:
            conditions.append("source = ?")
            values.append(self.source)
        if self.text:
            conditions.append(PLACES[self.within].replace("%s", _IN_COMPLETION))
            values.append(self.text)
        if self.flag:
            conditions.append(f"({FLAGS[self.flag].sql})")
        for column in RANGES:
            for bound, sign in (("from", ">="), ("to", "<=")):
                if typed := getattr(self, f"{column}_{bound}"):
                    conditions.append(f"{column} {sign} ?")
                    values.append(_number(f"{RANGES[column]}, {bound}", typed))
        return " AND ".join(conditions), values

    def order_sql(self) -> str:
        """Return the order in SQL; `where` has checked it."""
        return ORDERS[self.order]

    def query(self, **more: Any) -> str:
        """Return the filters that are set, and further values, as the query of an address."""
        changed = {name: value for name, value in self._asdict().items() if value != Filters._field_defaults[name]}
        return urlencode({**changed, **more})


def read_filters(query: Mapping[str, str]) -> Filters:
    """Return the filters in the query of an address; what else is in it is left alone."""
    return Filters(**{name: query[name].strip() for name in Filters._fields if query.get(name, "").strip()})


def _check(what: str, value: str, known: Any) -> None:
    if value not in known:
        raise ConfigurationError(f"{what} {value[:80]!r} is not one of: {', '.join(filter(None, known))}")


def _number(what: str, typed: str) -> float:
    try:
        number = float(typed)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ConfigurationError(f"{what}: {typed[:80]!r} must be a number")
    return number
