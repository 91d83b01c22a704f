"""Drawing: requests for completions go through an engine into the parts of a table, each as soon as it is complete."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.config.settings import Decoding
from tasks.pipeline.progress import Progress
from tasks.sampling.engines import Engine
from tasks.sampling.samples import Sample
from tasks.store.artifacts import Artifact
from tasks.store.growing import GrowingTable, part_name
from tasks.store.schemas import SCHEMAS

PARTS_AHEAD, BATCHES_AHEAD = 4, 8
"""Most requests begun and not yet written: so many parts, or so many times what the engine works on at once.

The larger number counts: a part waits for its longest completion, which takes several times the steps of the mean one,
and the engine must have enough to do until then.
"""


class Request(NamedTuple):
    """Completions of one prompt to draw: `number` of them, with the ids `first`, `first + 1`, ..."""

    prompt_id: str
    first: int
    number: int


def prompt_seed(seed: int, prompt_id: str) -> int:
    """Return the seed of a prompt: 62 bits of a hash, so that nothing else decides what is drawn for it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:8], "big") >> 2


def completion_rows(prompt_id: str, samples: list[Sample], first: int = 0) -> list[dict[str, Any]]:
    """Return the rows of one prompt's completions, which are numbered from `first` on."""
    return [
        {
            "prompt_id": prompt_id,
            "completion_id": number,
            "completion": sample.completion,
            "token_ids": sample.token_ids,
            "num_tokens": len(sample.token_ids),
            "finish_reason": sample.finish_reason,
        }
        for number, sample in enumerate(samples, first)
    ]


def requests_for(missing: Mapping[str, frozenset[int]]) -> list[Request]:
    """Return requests that draw the missing completions: one for each run of consecutive ids.

    Args:
        missing: Prompt -> ids of its missing completions.
    """
    requests = []
    for prompt_id, numbers in missing.items():
        starts = sorted(number for number in numbers if number - 1 not in numbers)
        ends = sorted(number for number in numbers if number + 1 not in numbers)
        requests += [Request(prompt_id, first, last - first + 1) for first, last in zip(starts, ends, strict=True)]
    return requests


def cut_into_parts(
    requests: list[Request], lengths: Mapping[str, int], homes: Mapping[str, str], part_size: int
) -> list[list[Request]]:
    """Return the requests in parts of at most `part_size`, the longest prompts first.

    Prompts that have some completions already are cut as the parts that hold those, so that few parts must be read
    together to have every completion of a prompt.

    Args:
        requests: What to draw.
        lengths: Prompt -> its tokens.
        homes: Prompt -> the part that holds other completions of it; a prompt without any is missing.
        part_size: Most requests a part.
    """

    def order(request: Request) -> tuple[int, Request]:
        return -lengths[request.prompt_id], request

    together: dict[str, list[Request]] = defaultdict(list)
    for request in sorted(requests, key=order):
        together[homes.get(request.prompt_id, "")].append(request)
    parts = [own[start : start + part_size] for own in together.values() for start in range(0, len(own), part_size)]
    return sorted(parts, key=lambda part: order(part[0]))


class Drawing:
    """Requests on their way through an engine into the parts of a table.

    The engine is fed without a pause. Once all requests of a part are drawn, a thread of its own writes it while the
    engine works on. At most `window` requests are begun and not yet written.
    """

    def __init__(
        self,
        table: GrowingTable,
        engine: Engine,
        parts: list[list[Request]],
        encode: Callable[[str], list[int]],
        decoding: Decoding,
    ) -> None:
        """Prepare to draw the parts in their order; `encode` gives a prompt's token ids."""
        self.table, self.engine, self.parts, self.encode, self.decoding = table, engine, parts, encode, decoding
        self.order = [(number, request) for number, part in enumerate(parts) for request in part]
        """Each request with the number of its part."""
        busy = engine.capacity * decoding.k // max(request.number for _, request in self.order)
        self.window = max(PARTS_AHEAD * decoding.part_size, BATCHES_AHEAD * busy)
        self.begun = self.done = self.written = self.tokens = 0
        self.drawn: dict[int, dict[Request, list[Sample]]] = {}
        """Part -> request -> its samples."""
        self.writes: deque[Future[tuple[Artifact, list[Request]]]] = deque()
        self.made: list[tuple[Artifact, list[Request]]] = []

    def run(self) -> list[tuple[Artifact, list[Request]]]:
        """Draw and commit everything; return the parts with their requests.

        Raises:
            StoreError: A part could not be written; those before it are committed.
        """
        progress, writer = Progress("sampling prompts", len(self.order)), ThreadPoolExecutor(1, "write-parts")
        try:
            while self.written < len(self.order):
                self._feed()
                self.writes.extend(writer.submit(self._write, part) for part in self._step())
                self._collect()
                progress.move_to(self.done, tokens=self.tokens)
        finally:  # whatever ended it, the part being written is waited for, and no other begun
            writer.shutdown(cancel_futures=True)
        progress.close()
        return self.made

    def _feed(self) -> None:
        """Give the engine requests up to the end of the window."""
        end = min(self.written + self.window, len(self.order))
        for number in range(self.begun, end):
            prompt_id, first, count = self.order[number][1]
            seed = prompt_seed(self.decoding.seed, prompt_id) + first
            self.engine.add(number, self.encode(prompt_id), seed, count)
        self.begun = max(self.begun, end)

    def _step(self) -> Iterator[dict[Request, list[Sample]]]:
        """Let the engine work, and yield the samples of each part that is complete by then, by request."""
        if self.done == self.begun:
            return
        for number, samples in self.engine.step():
            part, request = self.order[number]
            drawn = self.drawn.setdefault(part, {})
            drawn[request] = samples
            self.done += 1
            self.tokens += sum(len(sample.token_ids) for sample in samples)
            if len(drawn) == len(self.parts[part]):
                del self.drawn[part]
                yield {request: drawn[request] for request in self.parts[part]}

    def _write(self, drawn: dict[Request, list[Sample]]) -> tuple[Artifact, list[Request]]:
        """Commit a part, and return it with its requests."""
        rows = [row for own, samples in drawn.items() for row in completion_rows(own.prompt_id, samples, own.first)]
        name = part_name([f"{own.prompt_id} {own.first} {own.number}" for own in drawn])
        table = pa.Table.from_pylist(rows, SCHEMAS["completions"])
        return self.table.append(name, table, engine=self.engine.name), list(drawn)

    def _collect(self) -> None:
        """Take the parts that are written, or raise what went wrong; wait for one where the engine is idle."""
        idle = self.done == self.begun
        while self.writes and (idle or self.writes[0].done()):
            made, idle = self.writes.popleft().result(), False
            self.made.append(made)
            self.written += len(made[1])
