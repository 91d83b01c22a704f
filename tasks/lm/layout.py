"""Prompts with completions laid out for the forward passes: which sequences go together, padded to one length.

A batch holds prompts and, of each, some completions. A completion continues from its prompt's keys and values where
prompts are shared, else it stands behind a copy of its prompt. Sequences that are forwarded together have about the
same length. Imports torch, so import it inside functions only.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch

from tasks.lm.batches import Ids, Sequences
from tasks.lm.lengths import ANY_LENGTH, MOST_PADDING, Lengths

T = TypeVar("T")

LEAST_FILL = 0.75
"""The shortest row of a bucket has at least this share of the longest one's tokens."""
LEAST_PREFIX_FILL = 1 / MOST_PADDING
"""Of prompts that are computed together, the shortest has at least this share of the longest one's tokens."""


class Bucket(NamedTuple):
    """Rows of like length that are forwarded together, padded on the right."""

    ids: torch.Tensor
    """(rows, width): the last token of the prompt and the completion; without a shared prefix the whole prompt."""
    mask: torch.Tensor
    """(rows, width) 1 on tokens."""
    wanted: torch.Tensor
    """(rows, width) bool: positions whose hidden states are wanted."""
    prompt: torch.Tensor
    """(rows,) int: each row's prompt, as a row of the prefix."""


class Part(NamedTuple):
    """Prompts of like length with their completions."""

    prefix: tuple[torch.Tensor, torch.Tensor] | None
    """Ids and mask, (prompts, width), of the prompts up to their last token, padded on the left; None: not shared."""
    buckets: list[Bucket]
    """The completions."""


class Batch(NamedTuple):
    """Prompts with completions, laid out for the forward passes."""

    parts: list[Part]
    order: list[int]
    """The completions' numbers in the order of their rows: bucket after bucket."""
    tokens: int
    """Tokens forwarded, padding apart."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        parts = [
            Part(
                part.prefix and (part.prefix[0].to(device), part.prefix[1].to(device)),
                [Bucket(*(tensor.to(device) for tensor in bucket)) for bucket in part.buckets],
            )
            for part in self.parts
        ]
        return self._replace(parts=parts)


def lay_out(sequences: Sequences, shared: bool, least_fill: float = LEAST_FILL, lengths: Lengths = ANY_LENGTH) -> Batch:
    """Return a batch that asks for the state before each completion token: what its log-probability is read from.

    Args:
        sequences: Prompts of at least one token, and their completions.
        shared: Compute each prompt once, for the completions whose lengths allow it.
        least_fill: Share of a bucket's longest row that its shortest has at least; 0: all rows in one bucket.
        lengths: Which sequences may be forwarded together.
    """
    prompts, completions, prompt_of = sequences
    rows: tuple[list[_Row], list[_Row]] = ([], [])
    for number, (of, completion) in enumerate(zip(prompt_of, completions, strict=True)):
        shares = shared and lengths.shares(len(prompts[of]), len(completion))
        ids = [*prompts[of][-1 if shares else 0 :], *completion]
        rows[shares].append(_Row(number, ids, len(completion), of))
    whole, sharing = rows
    parts: list[tuple[list[int], list[list[_Row]]]] = []
    if whole:
        parts.append(([], list(_length_runs(whole, _row_length, least_fill, lambda row: lengths.kind(len(row.ids))))))
    for some in _length_runs(sorted({row.prompt for row in sharing}), lambda n: len(prompts[n]), LEAST_PREFIX_FILL):
        own = [row for row in sharing if row.prompt in some]
        parts.append((some, list(_length_runs(own, _row_length, least_fill))))
    tokens = sum(len(row.ids) for row in [*whole, *sharing])
    tokens += sum(len(prompts[number]) - 1 for number in {row.prompt for row in sharing})
    order = [row.number for _, buckets in parts for bucket in buckets for row in bucket]
    return Batch([_make_part(buckets, prompts, some) for some, buckets in parts], order, tokens)


def last_states_only(batch: Batch) -> Batch:
    """Return the batch asking for the state at each row's last token: what a reward is read from."""

    def last(bucket: Bucket) -> Bucket:
        wanted = torch.zeros_like(bucket.wanted)
        wanted[torch.arange(len(wanted)), bucket.mask.sum(1) - 1] = True
        return bucket._replace(wanted=wanted)

    return batch._replace(parts=[part._replace(buckets=[last(b) for b in part.buckets]) for part in batch.parts])


def targets(batch: Batch) -> torch.Tensor:
    """Return the completion tokens, (tokens,), in the order of the wanted states."""
    return torch.cat([b.ids[:, 1:][b.wanted[:, :-1]] for part in batch.parts for b in part.buckets])


def by_completion(batch: Batch, values: torch.Tensor) -> list[torch.Tensor]:
    """Return each completion's values, one for each wanted state."""
    sizes = [size for part in batch.parts for bucket in part.buckets for size in bucket.wanted.sum(1).tolist()]
    pieces = dict(zip(batch.order, values.split(sizes), strict=True))
    return [pieces[number] for number in range(len(pieces))]


class _Row(NamedTuple):
    """A completion to forward, with all of its prompt before it or only the prompt's last token."""

    number: int
    """The completion's number."""
    ids: list[int]
    wanted: int
    """How many of the last tokens are the completion's: the states before them are wanted."""
    prompt: int
    """The prompt's number."""


def _row_length(row: _Row) -> int:
    return len(row.ids)


def _length_runs(
    items: Iterable[T], length: Callable[[T], int], least_fill: float, kind: Callable[[T], int] = lambda _: 0
) -> Iterator[list[T]]:
    """Cut items, longest first, into runs of like length and one kind."""
    run: list[T] = []
    for item in sorted(items, key=lambda item: -length(item)):
        if run and (length(item) < least_fill * length(run[0]) or kind(item) != kind(run[0])):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _make_part(buckets: list[list[_Row]], prompts: Sequence[Ids], shared: list[int]) -> Part:
    """Return the buckets of rows that continue from the prompts with the numbers `shared`."""
    place = {number: new for new, number in enumerate(shared)}
    prefixes = [prompts[number][:-1] for number in shared]
    prefix = _pad_left(prefixes) if any(prefixes) else None
    return Part(prefix, [_make_bucket(bucket, place) for bucket in buckets])


def _make_bucket(rows: list[_Row], place: dict[int, int]) -> Bucket:
    """Return rows as tensors; `place`: number of a prompt -> its row of the prefix, where there is one."""
    width = len(rows[0].ids)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    along = torch.arange(width)
    ends = torch.tensor([len(row.ids) for row in rows])[:, None]
    wanted = (along >= ends - torch.tensor([row.wanted + 1 for row in rows])[:, None]) & (along < ends - 1)
    return Bucket(ids, (along < ends).long(), wanted, torch.tensor([place.get(row.prompt, 0) for row in rows]))


def _pad_left(sequences: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, sequences))
    pads = [width - len(ids) for ids in sequences]
    ids = torch.tensor([[0] * pad + list(own) for pad, own in zip(pads, sequences, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    return ids, mask
