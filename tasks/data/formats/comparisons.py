"""The pairs of a source: plain ones, or those that a form's rankings make."""

import json
from collections.abc import Iterator
from typing import Any

from tasks.config.sections import PreferenceSource
from tasks.data.columns import ANNOTATOR, PLAIN, Values, check_supported
from tasks.data.conversations import BadRow
from tasks.data.formats.known import find_format
from tasks.data.formats.rankings import Format, Graded, Ranking, pairs_of
from tasks.data.records import Record, parse_record
from tasks.data.sources import read_rows
from tasks.data.tally import Tally, read_records
from tasks.pipeline.progress import track

ALONE = "no other completion of the prompt"
TIE = "tie"


def read_preferences(source: PreferenceSource, tally: Tally) -> Iterator[tuple[str, Record]]:
    """Yield place and content of each pair, and count what else is compared: ties, and rows that are bad or alone.

    All pairs of a ranking come one after another.

    Raises:
        ConfigurationError: See `find_format`; or a row is damaged.
    """
    form = find_format(source)
    if form is None:
        yield from read_records(source, "preferences", tally)
        return
    rankings = _rankings(source, form, tally)
    for where, ranking in _gathered(rankings) if form.is_spread else rankings:
        if len(ranking.completions) < 2:
            tally.total += 1
            tally.left_out[ALONE] += 1
        for values in pairs_of(ranking, form.has_margin):
            yield from _parsed(values, where, tally)


def _parsed(values: dict[str, Any] | None, where: str, tally: Tally) -> Iterator[tuple[str, Record]]:
    """Yield a pair, unless it is a tie or bad."""
    tally.total += 1
    if values is None:
        tally.left_out[TIE] += 1
        return
    try:
        record = parse_record(values, "preferences")
    except BadRow as error:
        tally.drop(error.reason, where)
        return
    yield where, record


def _rankings(source: PreferenceSource, form: Format, tally: Tally) -> Iterator[tuple[str, Ranking]]:
    """Yield the rankings of each good row, and count the others."""
    read = form.columns | form.also_reads | {ANNOTATOR, *PLAIN}
    dimension = source.dimension or form.default
    for where, values in track(f"reading {source.path}", read_rows(source)):
        tally.rows += 1
        tally.unread |= {name for name, value in values.items() if value is not None} - read
        try:
            check_supported(values)
            rankings = list(form.read(dict.fromkeys(form.columns) | dict(values), dimension))
        except BadRow as error:
            tally.total += 1
            tally.drop(error.reason, where)
            continue
        yield from ((where, _with_annotator(ranking, values)) for ranking in rankings)


def _with_annotator(ranking: Ranking, values: Values) -> Ranking:
    name = values.get(ANNOTATOR)
    return ranking if name is None else ranking._replace(asked={**ranking.asked, ANNOTATOR: name})


def _gathered(rankings: Iterator[tuple[str, Ranking]]) -> Iterator[tuple[str, Ranking]]:
    """Yield the completions of each prompt together, at the place of the first; all of them are held meanwhile."""
    found: dict[str, tuple[str, Values, list[Graded]]] = {}
    for where, ranking in rankings:
        key = json.dumps(ranking.asked, sort_keys=True, default=str)
        found.setdefault(key, (where, ranking.asked, []))[2].extend(ranking.completions)
    for where, asked, completions in found.values():
        yield where, Ranking(asked, completions)
