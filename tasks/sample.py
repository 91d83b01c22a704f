"""Sampling: reads prompts, writes k completions a prompt, part by part, and only those that are missing."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from tasks.artifacts import NOTHING, Artifact, Provenance
from tasks.config import Decoding, SamplingConfig
from tasks.drafts import Draft, stage_key
from tasks.engines import Engine, Sample, open_engine
from tasks.models import model_folder, trusts_remote_code
from tasks.plan import pending
from tasks.progress import Progress, log
from tasks.prompts import PromptTable
from tasks.schemas import SCHEMAS
from tasks.stage import Work, stage
from tasks.storage import Store
from tasks.tables import GrowingTable, Slice, commit_slices, part_name, select_slices
from tasks.tokens import context_length, encode_prompt, load_tokenizer
from tasks.updates import warn_of_loss

TABLE_VERSION = 1
PARTS_AHEAD, BATCHES_AHEAD = 4, 8
"""Prompts that are begun and not yet written: so many parts, and so many times what the engine works on at once.

The batches, because a part waits for its longest completion, which takes several times the steps of the mean one, and
the engine must have enough to do until then.
"""


def prompt_seed(seed: int, prompt_id: str) -> int:
    """Return the seed of a prompt: 62 bits of a hash, so that nothing else decides what is drawn for it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:8], "big") >> 2


def completion_rows(prompt_id: str, samples: list[Sample]) -> list[dict[str, Any]]:
    """Return the rows of one prompt's completions."""
    return [
        {
            "prompt_id": prompt_id,
            "completion_id": number,
            "completion": sample.completion,
            "token_ids": sample.token_ids,
            "num_tokens": len(sample.token_ids),
            "finish_reason": sample.finish_reason,
        }
        for number, sample in enumerate(samples)
    ]


def completions_table(store: Store, policy: Artifact, decoding: Decoding) -> GrowingTable:
    """Return the table that holds every completion of a policy under some settings, whatever run drew it."""
    key = stage_key("completions", TABLE_VERSION, decoding.key_fields(), {"policy": policy.digest})
    config = {"decoding": decoding.model_dump(mode="json")}
    inputs = {"policy": policy.digest}
    provenance = Provenance(stage="completions", version=TABLE_VERSION, key=key, inputs=inputs, config=config)
    return GrowingTable(store, "completions", provenance)


def missing_prompts(store: Store, policy: Artifact, prompts: Artifact, decoding: Decoding) -> list[str]:
    """Return the prompts that have no completions of this policy under these settings."""
    wanted = PromptTable(prompts).ids
    missing = select_slices(completions_table(store, policy, decoding).parts(), set(wanted))[1]
    return [prompt_id for prompt_id in wanted if prompt_id in missing]


def sample_slices(store: Store, policy: Artifact, prompts: Artifact, decoding: Decoding) -> tuple[list[Slice], int]:
    """Return the slices with the prompts' completions, and how many prompts had to be sampled for them.

    The longest prompts go first, and a part is consecutive prompts, committed as soon as they are all drawn. A prompt's
    seed is its own, so what is drawn depends neither on its neighbours nor on a run that was killed before, as far as
    the kernels round alike in batches of any shape. In float32 on CPU they do; in bfloat16 on GPUs a logit's last bit
    may flip a token, and the rest of the completion is then another draw from the same distribution.
    """
    table, wanted = completions_table(store, policy, decoding), PromptTable(prompts)
    slices, missing = select_slices(table.parts(), set(wanted.ids))
    todo = [prompt_id for prompt_id in wanted.ids if prompt_id in missing]
    if todo:
        slices += _draw(table, policy, wanted, todo, decoding)
    return sorted(slices, key=lambda slice_: slice_.part.uri), len(todo)


def _draw(
    table: GrowingTable, policy: Artifact, prompts: PromptTable, todo: list[str], decoding: Decoding
) -> list[Slice]:
    warn_of_loss(policy, decoding.dtype, "sampling.dtype")
    folder = model_folder(policy)
    trust = trusts_remote_code(policy)
    tokenizer = load_tokenizer(folder, trust)

    def encode(prompt_id: str) -> list[int]:
        return encode_prompt(tokenizer, prompts[prompt_id])

    lengths = {prompt_id: len(encode(prompt_id)) for prompt_id in todo}  # the ids themselves would fill the memory
    order = sorted(todo, key=lambda prompt_id: (-lengths[prompt_id], prompt_id))
    longest = lengths[order[0]] + decoding.max_new_tokens
    engine = open_engine(folder, decoding, min(longest, context_length(folder)), trust)
    log(f"sampling {len(todo)} prompts x {decoding.k} with {engine.name}")
    try:
        return Drawing(table, engine, order, encode, decoding).run()
    finally:
        engine.close()


class Drawing:
    """Prompts on their way through an engine into the parts of a table.

    The engine is fed without a pause. A part is consecutive prompts of the order; once all of them are drawn, a thread
    of its own writes it while the engine works on. At most `window` prompts are begun and not yet written.
    """

    def __init__(
        self,
        table: GrowingTable,
        engine: Engine,
        order: list[str],
        encode: Callable[[str], list[int]],
        decoding: Decoding,
    ) -> None:
        """Prepare to draw the prompts of the order; `encode` gives a prompt's token ids."""
        self.table, self.engine, self.order, self.encode, self.decoding = table, engine, order, encode, decoding
        self.window = max(PARTS_AHEAD * decoding.part_size, BATCHES_AHEAD * engine.capacity)
        self.begun = self.done = self.written = 0
        self.drawn: dict[int, dict[int, list[Sample]]] = {}
        """Part -> place of a prompt in the order -> its samples."""
        self.writes: deque[Future[Artifact]] = deque()
        self.slices: list[Slice] = []

    def run(self) -> list[Slice]:
        """Draw and commit everything; return the parts.

        Raises:
            StoreError: A part could not be written; those before it are committed.
        """
        progress, writer = Progress("sampling prompts", len(self.order)), ThreadPoolExecutor(1, "write-parts")
        try:
            while self.written < len(self.order):
                self._feed()
                for part in self._step():
                    self.writes.append(writer.submit(self._write, part))
                self._collect()
                progress.move_to(self.done)
        finally:  # whatever ended it, the part being written is waited for, and no other begun
            writer.shutdown(cancel_futures=True)
        progress.close()
        return self.slices

    def _feed(self) -> None:
        end = min(self.written + self.window, len(self.order))
        for number in range(self.begun, end):
            prompt_id = self.order[number]
            self.engine.add(number, self.encode(prompt_id), prompt_seed(self.decoding.seed, prompt_id))
        self.begun = max(self.begun, end)

    def _step(self) -> Iterator[dict[int, list[Sample]]]:
        """Let the engine work, and yield the parts that this completed."""
        if self.done == self.begun:
            return
        for number, samples in self.engine.step():
            part = number // self.decoding.part_size
            drawn = self.drawn.setdefault(part, {})
            drawn[number] = samples
            self.done += 1
            if len(drawn) == len(self._places(part)):
                yield self.drawn.pop(part)

    def _places(self, part: int) -> range:
        size = self.decoding.part_size
        return range(part * size, min((part + 1) * size, len(self.order)))

    def _write(self, drawn: dict[int, list[Sample]]) -> Artifact:
        places = sorted(drawn)
        rows = [row for place in places for row in completion_rows(self.order[place], drawn[place])]
        name = part_name([self.order[place] for place in places])
        return self.table.append(name, pa.Table.from_pylist(rows, SCHEMAS["completions"]), engine=self.engine.name)

    def _collect(self) -> None:
        """Take what is written, or what went wrong with it; wait for it where the engine has nothing to do."""
        idle = self.done == self.begun
        while self.writes and (idle or self.writes[0].done()):
            part, idle = self.writes.popleft().result(), False
            self.slices.append(Slice(part))
            self.written += part.rows // self.decoding.k


def _preview(
    draft: Draft, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig
) -> tuple[Artifact, dict[str, Any]]:
    missing = len(missing_prompts(draft.store, policy, prompts, sampling)) if policy.digest else prompts.rows
    completions = missing * sampling.k
    cost = {"prompts": missing, "completions": completions, "at most tokens": completions * sampling.max_new_tokens}
    return pending(prompts.rows * sampling.k, "sample_completions"), cost


def _work(store: Store, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig) -> Work:
    table = completions_table(store, policy, sampling)
    return Work(table.provenance.key, lambda: len(missing_prompts(store, policy, prompts, sampling)))


@stage(
    version=1,
    preview=_preview,
    work=_work,
    retries=2,
    ready=lambda policy, prompts, annotated, sampling: None if annotated == NOTHING else annotated,
)
def sample_completions(
    out: Draft, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig
) -> Artifact:
    """Draw k completions a prompt: y_1 .. y_k ~ pi_SFT(. | x); annotated ones take their place where there are any."""
    slices, sampled = sample_slices(out.store, policy, prompts, sampling)
    return commit_slices(out, "completions", slices, {"sampled_prompts": sampled, **describe(slices)})


def describe(slices: list[Slice]) -> dict[str, Any]:
    """Return counts, lengths and how many completions were cut at max_new_tokens."""
    completions = tokens = cut = 0
    for slice_ in slices:
        table = slice_.read()
        completions += table.num_rows
        tokens += sum(table["num_tokens"].to_pylist())
        cut += table["finish_reason"].to_pylist().count("length")
    return {
        "completions": completions,
        "tokens": tokens,
        "mean_tokens": tokens / completions,
        "truncation_rate": cut / completions,
    }
