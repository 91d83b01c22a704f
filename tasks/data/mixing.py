"""Preferences of one or several sources as the rows of one table: each pair once, or as often as its source counts."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

from tasks.data.formats.comparisons import TIE
from tasks.data.prompt_table import hash_fraction
from tasks.data.records import Record
from tasks.data.tally import Tally
from tasks.store.drafts import canonical_json

MERGED = "merged into one pair by majority"
WEIGHT = "not drawn, by the source's weight"


class Mixed(NamedTuple):
    """A source, and what happens to its rows."""

    weight: float
    tally: Tally


class Opinion(NamedTuple):
    """A row of preferences that can be trained on."""

    source: Mixed
    prompt_id: str
    record: Record


@dataclasses.dataclass
class _Ballot:
    """The votes about two completions of a prompt."""

    first: Opinion
    chosen: str
    votes: Counter[tuple[str, str | None]] = dataclasses.field(default_factory=Counter)
    """By the completion that is preferred, and who prefers it."""
    rows: list[Mixed] = dataclasses.field(default_factory=list)


def copies_of(prompt_id: str, weight: float) -> int:
    """Return how often each pair of a prompt is in the table: `weight` on average over prompts, by the prompt's hash.

    A larger weight never gives fewer copies.
    """
    whole = int(weight)
    return whole + (hash_fraction(f"weight:{prompt_id}") < weight - whole)


def distinct_pairs(opinions: Iterable[Opinion]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a preferences table; of those before, hashes alone are held.

    A pair that an earlier source has is a duplicate, and so is a row that its own source has, margin included. A pair
    whose opposite is there is kept, and counted as contradicting it.
    """
    rows: set[bytes] = set()
    pairs: dict[bytes, int] = {}
    for source, prompt_id, record in opinions:
        tally, copies = source.tally, copies_of(prompt_id, source.weight)
        row, pair, opposite = _hashes(prompt_id, record)
        if not copies:
            tally.left_out[WEIGHT] += 1
        elif row in rows or pairs.get(pair, id(source)) != id(source):
            tally.left_out["duplicate"] += 1
        else:
            tally.kept += 1
            tally.contradicting += opposite in pairs
            rows.add(row)
            pairs[pair] = id(source)
            sides = {"chosen": record.chosen, "rejected": record.rejected, "margin": record.margin}
            yield from repeat({"prompt_id": prompt_id, "messages": record.messages, **sides}, copies)


def majority(opinions: Iterable[Opinion]) -> Iterator[Opinion]:
    """Yield each two completions of a prompt once, as most rows have it; all of them are held meanwhile.

    A named annotator has one vote for a side, a row without a name is a vote. Rows are counted at the source that has
    them, and the pair at the first one. The margin is the agreement,

        (votes for - votes against) / votes,

    in (0, 1]. Where the votes are equal there is no pair.
    """
    ballots: dict[tuple[str, frozenset[str]], _Ballot] = {}
    for opinion in opinions:
        record = opinion.record
        assert record.chosen is not None
        assert record.rejected is not None
        sides = frozenset((record.chosen, record.rejected))
        ballot = ballots.setdefault((opinion.prompt_id, sides), _Ballot(opinion, record.chosen))
        ballot.rows.append(opinion.source)
        vote = record.chosen, record.annotator
        ballot.votes[vote] = ballot.votes[vote] + 1 if record.annotator is None else 1
    for ballot in ballots.values():
        yield from _elected(ballot)


def _elected(ballot: _Ballot) -> Iterator[Opinion]:
    """Yield the pair that a ballot has elected, and count its other rows."""
    total = ballot.votes.total()
    lead = sum(votes if side == ballot.chosen else -votes for (side, _), votes in ballot.votes.items())
    for source in ballot.rows[1:] if lead else ballot.rows:
        source.tally.left_out[MERGED if lead else TIE] += 1
    if not lead:
        return
    record = ballot.first.record
    sides = (record.chosen, record.rejected) if lead > 0 else (record.rejected, record.chosen)
    margin = abs(lead) / total
    yield ballot.first._replace(
        record=dataclasses.replace(record, chosen=sides[0], rejected=sides[1], margin=margin, annotator=None)
    )


def source_stats(sources: Iterable[Mixed]) -> dict[str, Any]:
    """Return the counts of all sources together, and each source's own, by its name.

    `read` of a source is `kept`, `bad` and `left_out` together.
    """
    tallies = [source.tally for source in sources]
    total = Tally("", 0.0)
    for tally in tallies:
        total.total += tally.total
        total.contradicting += tally.contradicting
        total.bad += tally.bad
        total.left_out += tally.left_out
    own = {tally.name: {"rows": tally.rows or tally.total, **tally.stats(), "kept": tally.kept} for tally in tallies}
    return {**total.stats(), "sources": own}


def _hashes(prompt_id: str, record: Record) -> tuple[bytes, bytes, bytes]:
    """Return hashes of a row, of its pair and of the opposite pair; a margin of -0.0 is one of 0.0."""
    margin = None if record.margin is None else record.margin + 0.0
    given = ([record.chosen, record.rejected, margin], [record.chosen, record.rejected])
    texts = (canonical_json([prompt_id, *values]) for values in (*given, given[1][::-1]))
    row, pair, opposite = (hashlib.sha256(text.encode()).digest()[:16] for text in texts)
    return row, pair, opposite
