"""Our side of DPO's benchmark: the stage's training from disk to disk, and its passes alone, in memory."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers
from _pairs import World, as_groups
from _side_by_side import wait
from _trl import BATCH, trl_arguments
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.training.reference
from tasks.dpo import fit, with_ref_logps
from tasks.lm.logps import CompletionLogps
from tasks.pipeline.jobs import EXAMPLES, Job
from tasks.store.folders import Store
from tasks.training.dpo_examples import EXAMPLE_SCHEMA
from tasks.training.dpo_trainer import PackedDPOTrainer
from tasks.training.pack_collator import PackCollator, pack_numbers
from tasks.training.packs import DpoExample, Limits, PackSchedule, schedule_packs
from tasks.training.reference import WITHOUT_REF, RefLogps, find_ref_logps
from tasks.training.trained_model import write_tables

# On a GPU a child computes, whose start of some ten seconds, imports above all, would count for this side alone.
tasks.training.reference.run_job = tasks.training.reference.fit


class Clock:
    """Seconds within some methods, whoever calls them."""

    def __init__(self) -> None:
        """Start at 0."""
        self.seconds = 0.0

    @contextmanager
    def within(self, *methods: tuple[type, str]) -> Iterator[None]:
        """Count the seconds of methods."""
        plain = [getattr(owner, name) for owner, name in methods]
        for (owner, name), method in zip(methods, plain, strict=True):
            setattr(owner, name, self._counted(method))
        try:
            yield
        finally:
            for (owner, name), method in zip(methods, plain, strict=True):
                setattr(owner, name, method)

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                wait()
                self.seconds += time.perf_counter() - start

        return counted


PASSES = ((transformers.Trainer, "train"), (CompletionLogps, "__call__"))
"""What goes through a model, on both sides; TRL's reference is computed within its training."""


def new_store(world: World) -> Store:
    """Return an empty store."""
    return Store(tempfile.mkdtemp(dir=world.folder))


def reference_of(world: World, store: Store, groups: list[dict[str, Any]], folder: Path | None = None) -> RefLogps:
    """Return the log-probabilities of the groups' completions under the reference."""
    folder = folder or Path(tempfile.mkdtemp(dir=world.folder))
    write_tables(folder / WITHOUT_REF, [pa.Table.from_pylist(groups, EXAMPLE_SCHEMA)])
    return find_ref_logps(store, world.model, world.config, folder)


def our_epoch(world: World) -> None:
    """Compute the reference's log-probabilities into an empty store and train, from disk to disk."""
    store, folder = new_store(world), Path(tempfile.mkdtemp(dir=world.folder))
    reference = reference_of(world, store, world.groups, folder)
    write_tables(folder / EXAMPLES, with_ref_logps(folder, reference.by_sequence))
    settings = world.config.model_dump(mode="json")
    job = Job(fit="tasks.dpo:fit", folder=folder, model=Path(world.model.uri), store=store.uri, config=settings)
    fit(job.model_copy(update={"checkpoints": "checkpoints/train_dpo/benchmark"}))


def our_passes(world: World) -> PackedDPOTrainer:
    """Compute the reference's log-probabilities and train; nothing is saved. Return the trainer."""
    reference = reference_of(world, new_store(world), world.groups)
    groups = as_groups(world.groups, reference.by_sequence)
    planned = schedule_packs(groups, Limits(BATCH, world.config.tokens_per_batch, 1, True), 1, None, 0)
    trainer = packed_trainer(
        world,
        groups,
        planned,
        shared=True,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=planned.accumulation,
        max_steps=planned.steps,
        train_sampling_strategy="sequential",
        save_strategy="no",
    )
    trainer.train()
    return trainer


def packed_trainer(
    world: World, groups: list[DpoExample], planned: PackSchedule, shared: bool, **changes: Any
) -> PackedDPOTrainer:
    """Return our trainer, its weights in torch's default type."""
    return PackedDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(world.model.uri, dtype=torch.get_default_dtype()),
        args=trl_arguments(world, str(world.folder / "unused"), precompute_ref_log_probs=True, **changes),
        data_collator=PackCollator(groups, planned.packs, shared),
        train_dataset=pack_numbers(planned),
        processing_class=AutoTokenizer.from_pretrained(world.model.uri),
    )
