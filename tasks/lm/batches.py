"""Batches of prompts and completions under a budget of tokens, and the budget that suits a device.

Imports torch, so import it inside functions only.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from tasks.config.errors import ConfigurationError
from tasks.lm.memory import free_memory, unless_out_of_memory
from tasks.pipeline.pace import Tell
from tasks.pipeline.progress import log

Ids = Sequence[int]
CPU_TOKENS = 16384
"""Measured on 2 cores: with four times as many tokens a batch, all take 6 to 22% longer."""
GPU_TOKENS = 1 << 17
"""More keep no GPU busier, and would leave the 32-bit indices of some kernels."""
MEMORY_SHARE = 0.5
"""Share of the free memory that a batch may take by the estimate; the rest is for what the estimate leaves out."""


class Sequences(NamedTuple):
    """Completions, each behind its prompt, as token ids."""

    prompts: Sequence[Ids]
    completions: Sequence[Ids]
    """At least one token each."""
    prompt_of: Sequence[int]
    """Each completion's prompt."""

    def joined(self) -> "Sequences":
        """Return each completion joined to its prompt; the prompt that all then share is empty."""
        whole = [[*self.prompts[of], *ids] for of, ids in zip(self.prompt_of, self.completions, strict=True)]
        return Sequences([[]], whole, [0] * len(whole))

    def subset(self, rows: Sequence[int]) -> "Sequences":
        """Return some of the completions, in the order given, with the prompts that they need."""
        used = sorted({self.prompt_of[i] for i in rows})
        place = {number: new for new, number in enumerate(used)}
        prompts, completions = [self.prompts[number] for number in used], [self.completions[i] for i in rows]
        return Sequences(prompts, completions, [place[self.prompt_of[i]] for i in rows])

    def size(self, rows: Sequence[int]) -> int:
        """Return the tokens of a padded batch: completions times (longest prompt + longest completion).

        A batch needs so many keys and values, since each completion holds a copy of its prompt's.
        """
        prompt = max(len(self.prompts[self.prompt_of[i]]) for i in rows)
        return len(rows) * (prompt + max(len(self.completions[i]) for i in rows))

    def batches(self, rows: Iterable[int], budget: int) -> Iterator[list[int]]:
        """Yield batches of completions: one prompt's together, or, where they are too many, by length.

        Args:
            rows: Numbers of completions.
            budget: Largest size of a batch; a completion that is larger makes a batch of its own.
        """
        batch: list[int] = []
        for piece in self._pieces(rows, budget):
            if batch and self.size(batch + piece) > budget:
                yield batch
                batch = []
            batch = batch + piece
        if batch:
            yield batch

    def _pieces(self, rows: Iterable[int], budget: int) -> Iterator[list[int]]:
        """Yield completions of one prompt, as many as the budget allows; longest prompt and completion first."""
        waiting: dict[int, list[int]] = {}
        for i in sorted(rows, key=lambda i: -len(self.completions[i])):
            waiting.setdefault(self.prompt_of[i], []).append(i)
        for number in sorted(waiting, key=lambda number: -len(self.prompts[number])):
            own = waiting[number]
            while own:
                fit = max(1, budget // self.size(own[:1]))
                yield own[:fit]
                own = own[fit:]


class Budget:
    """Most tokens of a batch: what suits the device, halved for good where its memory does not suffice."""

    def __init__(self, model: PreTrainedModel, tokens: int | None = None) -> None:
        """Take a model on its device; without a number, what suits that."""
        self.device, self.tokens = model.device, tokens or tokens_that_fit(model)

    def run(
        self, sequences: Sequences, forward: Callable[[list[int]], torch.Tensor], tell: Tell | None = None
    ) -> np.ndarray:
        """Return what a forward pass gives each completion, (completions,) float64.

        Args:
            sequences: All completions.
            forward: Called with the numbers of some completions; returns (completions,).
            tell: Hears of each batch.

        Raises:
            ConfigurationError: A single completion needs more memory than there is.
        """
        found = np.empty(len(sequences.completions))
        waiting = deque(sequences.batches(range(len(found)), self.tokens))
        while waiting:
            if (values := unless_out_of_memory(forward, waiting[0])) is not None:
                rows = waiting.popleft()
                found[rows] = values.double().cpu().numpy()
                if tell is not None:
                    tell(found[rows])
                continue
            self._halve(sequences, waiting[0])
            waiting = deque(sequences.batches([i for rows in waiting for i in rows], self.tokens))
        return found

    def _halve(self, sequences: Sequences, rows: list[int]) -> None:
        """Halve the budget after a batch that did not fit."""
        tokens = sequences.size(rows)
        if len(rows) == 1:
            raise ConfigurationError(
                f"a prompt and completion of {tokens} tokens need more memory than {self.device} has free: set "
                "scoring.dtype and dpo.dtype to bfloat16, lower sampling.max_new_tokens, or use a GPU with more memory"
            )
        self.tokens = tokens // 2
        free_memory()
        log(f"out of memory at {tokens} tokens a batch: going on with {self.tokens}")


def tokens_that_fit(model: PreTrainedModel) -> int:
    """Return the budget of a batch that suits the model's device."""
    if model.device.type == "cpu":
        return CPU_TOKENS
    unused = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    free = torch.cuda.mem_get_info(model.device)[0] + unused
    token = bytes_per_token(model.config.get_text_config(), model.dtype.itemsize)
    return max(1, min(GPU_TOKENS, int(MEMORY_SHARE * free / token)))


def bytes_per_token(config: PreTrainedConfig, itemsize: int) -> int:
    """Estimate the memory that a token takes in a forward pass without gradient, in bytes.

    These are its keys and values in every layer, and within a layer about 12 vectors of the hidden size (residual,
    norms, queries, keys and values repeated for every head, attention) and 3 of the feed-forward size.

    Args:
        config: Of a transformer.
        itemsize: Bytes a number.
    """
    heads = getattr(config, "num_attention_heads", None) or 1  # none in a recurrent model
    key = (getattr(config, "num_key_value_heads", None) or heads) * (
        getattr(config, "head_dim", None) or config.hidden_size // heads
    )
    feed_forward = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    numbers = 2 * config.num_hidden_layers * key + 12 * config.hidden_size + 3 * feed_forward
    return int(itemsize * numbers)
