"""A trainer that takes each optimizer step in passes under a budget of tokens, whatever its examples are.

One row of its data set is one device's share of one step. So a step has the same examples for every budget and number
of devices, and where memory runs out it is taken again from its beginning, in smaller passes. Imports torch, so import
it inside functions only.
"""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from accelerate.utils import DistributedType, send_to_device
from datasets import Dataset

from tasks.config.errors import ConfigurationError
from tasks.config.training import TokenBatches
from tasks.lm.memory import free_memory, unless_out_of_memory
from tasks.pipeline.progress import log
from tasks.training.passes import deal, draw_steps, like_lengths

E = TypeVar("E")


class StepExamples(Protocol[E]):
    """What a training is made of."""

    least_fill: float
    """Share of the longest example of a pass that each other one has at least."""

    def __len__(self) -> int:
        """Return how many examples steps are drawn from."""

    def read(self, step: np.ndarray) -> list[E]:
        """Return the examples of a step."""

    def tokens(self, example: E) -> int:
        """Return how many tokens an example has forwarded."""

    def size(self, example: E) -> int:
        """Return how much an example counts in what is logged: its pairs, or its tokens."""

    def halve(self, example: E) -> list[E]:
        """Cut an example in two, or return it alone where it cannot be cut."""

    def lay_out(self, own: list[E], step: list[E], counts: bool) -> dict[str, Any]:
        """Return what the model and the loss take of a pass.

        Args:
            own: The examples of the pass.
            step: All of the step.
            counts: False: what other devices wait for, and no part of the step.
        """


class StepCollator:
    """Lays out a device's share of an optimizer step."""

    def __init__(self, examples: StepExamples[Any], config: TokenBatches) -> None:
        """Take all examples, and the section of the training, by which steps are drawn from them."""
        self.examples, self.section = examples, config.section
        self.steps = draw_steps(len(examples), config.batch_size, config.epochs, config.max_steps, config.seed)
        self.devices, self.budget = config.devices, config.tokens_per_batch

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        """Return a share: its number, and by pass what is taken, its tokens, its size on all devices, if it can be cut.

        A pass has as many tokens as if all of its examples were as long as its longest one.
        """
        number = rows[0]["share"]
        step, device = divmod(number, self.devices)
        whole = self.examples.read(self.steps[step])
        pieces = [piece for example in whole for piece in self._cut(example)]
        tokens, sizes = ([measure(piece) for piece in pieces] for measure in (self.examples.tokens, self.examples.size))
        dealt = deal(like_lengths(tokens, self.budget, self.examples.least_fill), self.devices)
        rest = [int(np.argmin(tokens))]  # for a device that is left without
        own = [(places or rest, bool(places)) for places in dealt[device]]
        return {
            "share": number,
            "passes": [self.examples.lay_out([pieces[i] for i in ids], whole, counts) for ids, counts in own],
            "tokens": [len(ids) * max(tokens[i] for i in ids) for ids, _ in own],
            "sizes": [sum(sizes[i] for ids in at_once for i in ids) for at_once in zip(*dealt, strict=True)],
            "cuttable": [len(ids) > 1 or len(self.examples.halve(pieces[ids[0]])) > 1 for ids, _ in own],
        }

    def _cut(self, example: Any) -> list[Any]:
        halves = [example] if self.examples.tokens(example) <= self.budget else self.examples.halve(example)
        return halves if len(halves) == 1 else [piece for half in halves for piece in self._cut(half)]


def shares(collator: StepCollator) -> Dataset:
    """Return the data set that a trainer walks through: the numbers of all shares, step after step."""
    return Dataset.from_dict({"share": range(len(collator.steps) * collator.devices)})


def step_arguments(collator: StepCollator) -> dict[str, Any]:
    """Return the arguments with which a trainer walks through shares in their order."""
    return {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "max_steps": len(collator.steps),
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
    }


class TakesSteps:
    """What a trainer of TRL's is mixed with so that one row of its data set is a share of an optimizer step."""

    accelerator: Any
    data_collator: StepCollator
    model: Any
    _metrics: dict[str, defaultdict[str, list[float]]]
    _total_train_tokens: int
    loss_is_scaled_for_ga = True
    """No division by the number of passes: their losses add up to the step's."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs  # accelerate's data loader has put them on the device

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return transformers' estimate for the tokens of a share."""
        return 6 * int(sum(inputs["tokens"]) * self.model.num_parameters(exclude_embeddings=True))

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Go forward and backward through a share, in smaller passes where memory runs out; return the loss.

        Raises:
            ConfigurationError: A single example does not fit, or another device would wait for ever.
        """
        logged = {name: list(values) for name, values in self._metrics["train"].items()}
        before = self._total_train_tokens
        while (loss := self._take(model, inputs)) is None:
            self.model.zero_grad()
            self._metrics["train"] = defaultdict(list, {name: list(values) for name, values in logged.items()})
            self._total_train_tokens = before
            inputs = send_to_device(self.data_collator([{"share": inputs["share"]}]), self.accelerator.device)
        for name, values in self._metrics["train"].items():
            known = len(logged.get(name, ()))
            if len(own := values[known:]) == len(inputs["sizes"]):
                values[known:] = [_of_step(name, own, inputs["sizes"])]
        return loss

    def _take(self, model: Any, share: dict[str, Any]) -> torch.Tensor | None:
        """Add up the gradients of a share's passes; return the sum of their losses, None where memory runs out."""
        losses: list[torch.Tensor] = []
        self.current_gradient_accumulation_steps = len(share["passes"])  # which a mean over passes is divided by
        learn = functools.partial(super().training_step, model)  # type: ignore[misc]
        for number, own in enumerate(share["passes"]):
            with self._synchronized(model, number == len(share["passes"]) - 1):
                loss = unless_out_of_memory(learn, own)
            if loss is None:
                self._lower(share["tokens"][number], share["cuttable"][number])
                return None
            losses.append(loss)
        return sum(losses[1:], losses[0])

    @contextlib.contextmanager
    def _synchronized(self, model: Any, last: bool) -> Iterator[None]:
        """Have devices exchange gradients in the last pass of a step alone."""
        self.accelerator.gradient_state._set_sync_gradients(last)
        apart = not last and self.accelerator.distributed_type != DistributedType.DEEPSPEED
        with self.accelerator.no_sync(model) if apart else contextlib.nullcontext():
            yield

    def _lower(self, tokens: int, cuttable: bool) -> None:
        """Halve the budget after a pass that did not fit.

        Raises:
            ConfigurationError: It cannot be cut, or other devices have fit theirs and go on.
        """
        section = self.data_collator.section
        if self.accelerator.distributed_type != DistributedType.NO:
            raise ConfigurationError(
                f"a pass of {tokens} tokens needs more memory than a device has free: lower {section}.tokens_per_batch."
                " Several devices must go on together, so that it is not halved on one of them"
            )
        if not cuttable:
            raise ConfigurationError(
                f"an example of {tokens} tokens needs more memory than the device has free: set {section}.lora, "
                f"{section}.dtype = bfloat16 or {section}.extra.gradient_checkpointing, lower {section}.max_length, or "
                "use a GPU with more memory"
            )
        self.data_collator.budget = tokens // 2
        free_memory()
        log(f"out of memory at {tokens} tokens a pass: going on with {tokens // 2}; {section}.tokens_per_batch sets it")


def _of_step(name: str, values: list[float], sizes: list[int]) -> float:
    """Return a metric of a step: the least or greatest of its passes, or their mean by how much each counts."""
    if name.startswith(("min_", "max_")):
        return min(values) if name.startswith("min_") else max(values)
    return float(np.average(values, weights=sizes))
