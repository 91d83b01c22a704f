"""Examples of a DPO training: one row a prompt, with its unique completions as tokens and the pairs of them."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.training import DpoConfig
from tasks.data.prompt_table import PromptTable
from tasks.lm.tokens import encode_prompt
from tasks.pipeline.progress import Progress
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.parquet import read_tables
from tasks.store.slices import read_slices, read_whole_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IDS = pa.list_(pa.int32())
EXAMPLE_SCHEMA = pa.schema(
    {
        "prompt_id": pa.string(),
        "prompt": IDS,
        "completion_ids": IDS,
        "completions": pa.list_(IDS),
        "sequence_ids": pa.list_(pa.string()),
        "chosen": IDS,
        "rejected": IDS,
    }
)
"""`chosen` and `rejected` are places in `completions`; of completions with equal tokens, the first stands for all."""
WITH_GAPS = EXAMPLE_SCHEMA.append(pa.field("reward_gaps", pa.list_(pa.float32())))
"""With the reward of chosen less that of rejected, one a pair, for the losses that read it."""


class PairsByPrompt:
    """The pairs of each prompt, as ids."""

    def __init__(self, pairs: Artifact, with_gaps: bool = False) -> None:
        """Read the ids of every pair, its reward gap where that is wanted, and nothing else of it.

        A file at a time: an Arrow array holds 2 GB of text, that is 33.5 million prompt ids.
        """
        self._code_of: dict[str, int] = {}
        codes, ids = [np.empty(0, np.int32)], [np.empty((0, 2), np.int32)]
        gaps = [np.empty(0, np.float32)]
        columns = ["prompt_id", "chosen_id", "rejected_id", *(["reward_gap"] if with_gaps else [])]
        for table in read_tables(pairs, columns):
            codes.append(self._encode(table["prompt_id"]))
            ids.append(np.stack([table[name].to_numpy() for name in ("chosen_id", "rejected_id")], 1))
            if with_gaps:
                gaps.append(table["reward_gap"].to_numpy())
        code, rows = np.concatenate(codes), np.concatenate(ids)
        self.total = len(code)
        order = np.lexsort((rows[:, 1], rows[:, 0], code))
        self._ids: np.ndarray = rows[order]
        self._gaps = np.concatenate(gaps)[order] if with_gaps else None
        self._ends = np.cumsum(np.bincount(code, minlength=len(self._code_of)))

    def __iter__(self) -> Iterator[str]:
        """Yield the prompts."""
        return iter(self._code_of)

    def __contains__(self, prompt_id: str) -> bool:
        """Tell whether a prompt has pairs."""
        return prompt_id in self._code_of

    def __getitem__(self, prompt_id: str) -> np.ndarray:
        """Return the (pairs, 2) ids of chosen and rejected completions, in order."""
        return self._ids[self._place(prompt_id)]

    def gaps(self, prompt_id: str) -> np.ndarray | None:
        """Return the (pairs,) reward gaps in the same order; None where they were not read."""
        return None if self._gaps is None else self._gaps[self._place(prompt_id)]

    def check_gaps(self, dpo: DpoConfig) -> None:
        """Refuse reward gaps that a loss which reads them cannot take.

        Raises:
            ConfigurationError: One is no number, or has no logarithm that ODPO takes.
        """
        if self._gaps is None:
            return
        if lost := int((~np.isfinite(self._gaps)).sum()):
            raise ConfigurationError(
                f"{lost} of {self.total} pairs have no reward gap, which dpo.loss_type = {dpo.loss_type} reads: score "
                "all completions, or take a loss that reads none"
            )
        if "odpo" in dpo.losses and dpo.odpo_scale == "log" and self._gaps.min() <= 0:
            raise ConfigurationError(
                f"a pair's reward gap is {self._gaps.min():g} and must be above 0 with dpo.odpo_scale = log: set "
                "dpo.odpo_scale = linear, or take a strategy whose chosen completions have the higher reward"
            )

    def _place(self, prompt_id: str) -> slice:
        code = self._code_of[prompt_id]
        return slice(self._ends[code - 1] if code else 0, self._ends[code])

    def _encode(self, prompt_ids: pa.ChunkedArray) -> np.ndarray:
        """Return the number of each prompt; a new prompt gets the next number."""
        found = [np.empty(0, np.int32)]
        for chunk in prompt_ids.chunks:
            encoded = chunk.dictionary_encode()
            numbers = [self._code_of.setdefault(id_, len(self._code_of)) for id_ in encoded.dictionary.to_pylist()]
            found.append(np.array(numbers, np.int32)[encoded.indices.to_numpy()])
        return np.concatenate(found)


class ExampleBuilder:
    """Joins pairs with tokens, a few parts of the completions at a time, and counts the pairs that it drops."""

    def __init__(
        self,
        pairs: Artifact,
        prompts: Artifact,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        with_gaps: bool = False,
    ) -> None:
        """Read the pairs.

        Args:
            pairs: Pairs of completion ids.
            prompts: Conversations.
            tokenizer: The policy's.
            max_length: Longest prompt plus completion in tokens; pairs with a longer one are dropped.
            with_gaps: Put the reward gap of each pair into the examples.
        """
        self.pairs, self.messages = PairsByPrompt(pairs, with_gaps), PromptTable(prompts)
        self.schema = WITH_GAPS if with_gaps else EXAMPLE_SCHEMA
        self.tokenizer, self.max_length = tokenizer, max_length
        self.kept = 0

    @property
    def too_long(self) -> int:
        """Return the number of dropped pairs, once all examples are built."""
        return self.pairs.total - self.kept

    def build(self, store: Store, completions: Artifact) -> Iterator[pa.Table]:
        """Yield the examples of all paired prompts, a few parts of the completions at a time.

        Raises:
            DamagedArtifactError: A pair names a completion that is not there.
            ConfigurationError: No pair is short enough.
        """
        missing = set(self.pairs)
        slices, columns = read_slices(store, completions), ["prompt_id", "completion_id", "token_ids"]
        progress = Progress("laying out pairs of prompts", len(missing))
        for rows in read_whole_prompts(slices, columns):
            found = self._tokens_by_prompt(rows)
            missing -= found.keys()
            examples = [self._example(prompt_id, found[prompt_id]) for prompt_id in sorted(found)]
            yield pa.Table.from_pylist([example for example in examples if example["chosen"]], self.schema)
            progress.advance(len(found))
        progress.close()
        if missing:
            raise DamagedArtifactError(
                f"the completions of {len(missing)} paired prompts are missing, first {min(missing)}: {AGAIN}"
            )
        if not self.kept:
            raise ConfigurationError(
                f"all {self.pairs.total} pairs are longer than dpo.max_length = {self.max_length} tokens: raise it"
            )

    def _tokens_by_prompt(self, rows: pa.Table) -> dict[str, dict[int, list[int]]]:
        """Return, for each prompt that has pairs, its completions' token ids by completion_id."""
        found: dict[str, dict[int, list[int]]] = {}
        for place, (prompt_id, number) in enumerate(
            zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)
        ):
            if prompt_id in self.pairs:
                found.setdefault(prompt_id, {})[number] = rows["token_ids"][place].as_py()
        return found

    def _example(self, prompt_id: str, tokens: dict[int, list[int]]) -> dict[str, Any]:
        pairs, gaps = self.pairs[prompt_id], self.pairs.gaps(prompt_id)
        if missing := set(pairs.flatten().tolist()) - tokens.keys():
            raise DamagedArtifactError(f"completion {prompt_id}/{min(missing)} is in a pair, and missing: {AGAIN}")
        prompt = encode_prompt(self.tokenizer, self.messages[prompt_id])
        lengths = {number: len(prompt) + len(ids) for number, ids in tokens.items()}
        fits = [max(lengths[number] for number in pair) <= self.max_length for pair in pairs.tolist()]
        kept = pairs[fits].tolist()
        self.kept += len(kept)
        unique: dict[tuple[int, ...], int] = {}
        for number in sorted({number for pair in kept for number in pair}):
            unique.setdefault(tuple(tokens[number]), number)
        place = {ids: i for i, ids in enumerate(unique)}
        chosen, rejected = ([place[tuple(tokens[pair[side]])] for pair in kept] for side in (0, 1))
        return {
            "prompt_id": prompt_id,
            "prompt": prompt,
            "completion_ids": list(unique.values()),
            "completions": [list(ids) for ids in unique],
            "sequence_ids": [sequence_id(prompt, ids) for ids in unique],
            "chosen": chosen,
            "rejected": rejected,
            **({} if gaps is None else {"reward_gaps": gaps[fits]}),
        }


AGAIN = "build the pairs again"


def sequence_id(prompt: list[int], completion: tuple[int, ...]) -> str:
    """Return what names a prompt and completion by their tokens: 128 bits of a hash."""
    content = np.array([len(prompt), *prompt, *completion], "<i4").tobytes()
    return hashlib.sha256(content).hexdigest()[:32]
