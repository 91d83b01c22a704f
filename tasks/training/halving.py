"""What a training does where memory runs out: DPO takes the same packs in halves, others say what to lower.

A pack's loss is a mean over its pairs, weighed with its share of the step. So the losses of its halves, each with its
own share, add up to the pack's loss, and their gradients to its gradient: only rounding tells them apart. Where memory
runs out amid a backward pass, some weights have a part of the pack's gradient. Then all gradients of the step are
dropped, and its packs taken again from the first one, instead of a copy of the gradients being kept at every pack.
Imports torch inside functions only.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.config.errors import ConfigurationError
from tasks.config.training import FixedBatches, Training
from tasks.lm.memory import free_memory, unless_out_of_memory
from tasks.pipeline.progress import log
from tasks.pipeline.shards import balance
from tasks.training.packs import UNBOUNDED, DpoExample, Pack, Piece, halve

if TYPE_CHECKING:
    import torch

    from tasks.training.pack_collator import PackCollator


def halve_pack(pack: Pack, examples: Sequence[DpoExample], shared: bool) -> list[Pack]:
    """Cut a pack in two of like size, whose weights add up to its own; a pack of one pair is never cut.

    Args:
        pack: Pieces of examples.
        examples: Of which the pieces are.
        shared: A prompt counts once for all its completions.
    """
    each = pack.each or (1.0,) * len(pack.pieces)
    if len(pack.pieces) > 1:
        groups = balance([piece.tokens for piece in pack.pieces], 2)
        halves = [[(pack.pieces[i], each[i]) for i in sorted(own)] for own in groups]
    elif pack.pieces[0].pairs > 1:
        halves = [[(piece, each[0])] for piece in halve(pack.pieces[0], examples, shared)]
    else:
        return [pack]
    return [_part_of(pack, own) for own in halves]


def _part_of(pack: Pack, pieces: list[tuple[Piece, float]]) -> Pack:
    """Return some pieces of a pack, with the weights of their pairs, as a pack."""
    each = pack.each or (1.0,) * len(pack.pieces)
    whole = sum(piece.pairs * weight for piece, weight in zip(pack.pieces, each, strict=True))
    share = sum(piece.pairs * weight for piece, weight in pieces)
    mean = share / sum(piece.pairs for piece, _ in pieces)
    tokens = sum(piece.chosen_tokens for piece, _ in pieces) / sum(piece.chosen_tokens for piece in pack.pieces)
    return pack._replace(
        pieces=tuple(piece for piece, _ in pieces),
        weight=pack.weight * share / whole,
        token_weight=pack.token_weight * tokens,
        each=tuple(weight / mean for _, weight in pieces) if pack.each else (),
    )


def pack_tokens(pack: Pack) -> int:
    """Return the tokens that a pack forwards, padding apart."""
    return sum(piece.tokens for piece in pack.pieces)


class FittingPacks:
    """Packs, in parts that fit the memory: once one has not, all larger ones are cut for good."""

    def __init__(self, collator: "PackCollator", alone: bool) -> None:
        """Take what lays out packs, and whether this process trains alone.

        Several processes call the model at the same time, so that none of them can go back.
        """
        self.collator, self.alone, self.tokens = collator, alone, UNBOUNDED

    def cut(self, pack: Pack) -> list[Pack]:
        """Return a pack, or its parts of at most as many tokens as fit; a single pair may have more."""
        halves = [pack] if pack_tokens(pack) <= self.tokens else self._halves(pack)
        return halves if len(halves) == 1 else [part for half in halves for part in self.cut(half)]

    def lower(self, pack: Pack) -> None:
        """Halve what fits after a pack that did not.

        Raises:
            ConfigurationError: It cannot be cut.
        """
        tokens = pack_tokens(pack)
        if not self.alone:
            raise ConfigurationError(
                f"a pack of {tokens} tokens needs more memory than a device has free: lower dpo.tokens_per_batch. "
                "Several devices must go on together, so that it is not halved on one of them"
            )
        if len(self._halves(pack)) == 1:
            raise ConfigurationError(
                f"a pair of {tokens} tokens needs more memory than the device has free: set dpo.lora, dpo.dtype = "
                "bfloat16 or dpo.extra.gradient_checkpointing, lower dpo.max_length, or use a GPU with more memory"
            )
        self.tokens = tokens // 2
        free_memory()
        log(f"out of memory at a pack of {tokens} tokens: going on with {self.tokens}; dpo.tokens_per_batch sets that")

    def add_up(self, pack: Pack, measure: Callable[[Pack], "torch.Tensor"]) -> "torch.Tensor":
        """Return the sum of what a pass without gradient gives for the parts of a pack."""
        waiting, found = deque(self.cut(pack)), []
        while waiting:
            if (value := unless_out_of_memory(measure, waiting[0])) is not None:
                found.append(value)
                waiting.popleft()
                continue
            self.lower(waiting[0])
            waiting = deque(part for own in waiting for part in self.cut(own))
        return sum(found[1:], found[0])

    def _halves(self, pack: Pack) -> list[Pack]:
        return halve_pack(pack, self.collator.examples, self.collator.shared)


class RepeatableStep:
    """The packs of an optimizer step, which are taken again from the first one where memory runs out."""

    def __init__(self, packs: FittingPacks, drop: Callable[[], None]) -> None:
        """Take what cuts packs, and a function that drops the step's gradients, and what was noted of them."""
        self.packs, self.drop = packs, drop
        self.taken: list[Pack] = []
        """Packs whose gradients are added up so far."""

    def take(self, pack: Pack, learn: Callable[[Pack], "torch.Tensor"]) -> "torch.Tensor":
        """Add the gradient of a pack to the step's; return its loss.

        Args:
            pack: The next pack of the step.
            learn: Goes forward and backward through a pack, or a part of it, and returns its loss.
        """
        again: list[Pack] = []  # empty where a step goes well: the gradients of the packs before are there
        while (loss := self._take_all([*again, pack], learn)) is None:
            self.drop()
            again = self.taken
        self.taken.append(pack)
        return loss

    def _take_all(self, packs: list[Pack], learn: Callable[[Pack], "torch.Tensor"]) -> "torch.Tensor | None":
        """Go through packs; return the loss of the last one, None where memory runs out."""
        loss = None
        for pack in packs:
            if (loss := self._take_one(pack, learn)) is None:
                return None
        return loss

    def _take_one(self, pack: Pack, learn: Callable[[Pack], "torch.Tensor"]) -> "torch.Tensor | None":
        """Go through the parts of a pack; return its loss, None where memory runs out."""
        losses = []
        for part in self.packs.cut(pack):
            if (loss := unless_out_of_memory(learn, part)) is None:
                self.packs.lower(part)
                return None
            losses.append(loss)
        return sum(losses[1:], losses[0])


@contextlib.contextmanager
def says_what_to_lower(config: Training) -> Iterator[None]:
    """Name the settings that take less memory where a training runs out of it.

    Raises:
        ConfigurationError: It does.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            f"the training ran out of memory: {'; '.join(_what_takes_less(config))} ({error})"
        ) from error


def _what_takes_less(config: Training) -> list[str]:
    """Return the changes of a training's settings that take less memory, the mildest first."""
    name, batch = config.section, "tokens_per_batch"
    if isinstance(config, FixedBatches):
        batch = f"micro_batch_size = {config.micro_batch_size}"
    ways = [f"lower {name}.{batch}, which changes no result"]
    if not config.extra.get("gradient_checkpointing"):
        ways.append(f"set {name}.extra.gradient_checkpointing")
    if config.lora is None:
        ways.append(f"set {name}.lora")
    return [*ways, f"lower {name}.max_length = {config.max_length}"]
