"""Our trainer of pairs, and the other way to train on them: TRL's `DPOTrainer`, which forwards both sides of each."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import trl.trainer.utils
from datasets import Dataset
from random_groups import tokenizer
from transformers import PreTrainedModel
from trl import DPOConfig as DpoArguments
from trl import DPOTrainer

from tasks.training.dpo_trainer import PackedDPOTrainer
from tasks.training.pack_collator import PackCollator, pack_numbers
from tasks.training.packs import DpoExample, Limits, PackSchedule, Piece, schedule_packs


class PairwiseTrainer(DPOTrainer):
    """TRL's trainer for pairs that are token ids already; a reference column, where there is one, is taken as it is."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
        if "ref_chosen_logps" in dataset.column_names:
            return dataset
        return super()._precompute_ref_logps(dataset, *args)


def pair_rows(groups: Sequence[DpoExample], pieces: Iterable[Piece] | None = None, with_ref: bool = True) -> list[dict]:
    """Return the pairs of some pieces, or of all groups, as TRL's collator takes them."""
    whole = ((number, 0, len(group.chosen)) for number, group in enumerate(groups))
    rows = []
    for number, first, last in whole if pieces is None else ((p.example, p.first, p.last) for p in pieces):
        group = groups[number]
        for chosen, rejected in zip(group.chosen[first:last], group.rejected[first:last], strict=True):
            row: dict[str, Any] = {"prompt_ids": list(group.prompt)}
            for side, place in (("chosen", chosen), ("rejected", rejected)):
                row[f"{side}_ids"] = list(group.completions[place])
                if with_ref:
                    row[f"ref_{side}_logps"] = group.ref_logps[place]
            rows.append(row)
    return rows


def pairs_dataset(rows: list[dict]) -> Dataset:
    """Return pairs as a data set."""
    return Dataset.from_list(rows)


def gradient(trainer: DPOTrainer, batches: Iterable[dict[str, Any]]) -> tuple[torch.Tensor, float]:
    """Return the gradient of all trained weights in a row, and the loss, added up over batches."""
    trainer.model.train()
    trainer.model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        total += loss.item()
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]), total


@contextmanager
def precise_head() -> Iterator[None]:
    """Have TRL's head, which rounds to float32 inside, compute in the type of the hidden states."""

    def apply(hidden, weight, bias, targets, *settings):
        temperature, _chunk_size, softcap, scale, _outputs = settings
        assert (temperature, softcap, scale) == (1.0, None, 1.0)
        logits = torch.nn.functional.linear(hidden, weight, bias)
        logps = torch.log_softmax(logits, -1)
        entropy = -(logps.exp() * logps).sum(-1).detach()
        spread = torch.logsumexp(2 * logps, -1).detach()
        found = logps.gather(1, targets[:, None])[:, 0]
        return found, entropy, spread, logits.mean(-1).detach(), logits.argmax(-1) == targets

    theirs = trl.trainer.utils._ChunkedLogProbFunction
    trl.trainer.utils._ChunkedLogProbFunction = SimpleNamespace(apply=apply)
    try:
        yield
    finally:
        trl.trainer.utils._ChunkedLogProbFunction = theirs


# Our trainer and TRL's on a tiny model

ALL_AT_ONCE = Limits(batch_size=10**6, tokens=10**9, devices=1, shared=True)
THREE = [
    DpoExample(
        [5, 6, 7], [[8, 9], [10, 11, 12, 13], [14], [8, 9]], [-9.0, -14.0, -3.0, -9.0], [0, 0, 1, 3], [1, 2, 2, 1]
    ),
    DpoExample([9], [[4, 4, 4, 4, 4, 4, 4], [5]], [-25.0, -4.0], [1], [0]),
    DpoExample([3, 4, 5, 6, 7, 8], [[2, 3], [4, 5, 6]], [-7.5, -11.0], [0], [1]),
]


def arguments(folder, **changes: Any) -> DpoArguments:
    """Return TRL's arguments for a CPU, without anything that is random."""
    settings = {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "precompute_ref_log_probs": True,
        "per_device_train_batch_size": 1,
        "remove_unused_columns": False,
        "train_sampling_strategy": "sequential",
        "router_aux_loss_coef": 0.0,
        "max_length": None,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    return DpoArguments(**settings | changes)


def unweighed(planned: PackSchedule, own: Sequence[DpoExample]) -> PackSchedule:
    """Return packs as they are."""
    return planned


def grouped(
    model: PreTrainedModel, own: list[DpoExample], limits: Limits, args: DpoArguments, weigh=unweighed, **more: Any
):
    """Return our trainer and the packs of an epoch."""
    planned = weigh(schedule_packs(own, limits, 1, None, 0), own)
    collator = PackCollator(own, planned.packs, limits.shared)
    args.gradient_accumulation_steps, args.max_steps = planned.accumulation, planned.steps
    trainer = PackedDPOTrainer(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=pack_numbers(planned),
        processing_class=tokenizer(),
        **more,
    )
    return trainer, [collator([{"pack": number}]) for number in range(len(planned.packs))]


def pairwise(model: PreTrainedModel, own: list[DpoExample], args: DpoArguments, **more: Any):
    """Return TRL's trainer and all pairs as one batch."""
    rows = pair_rows(own)
    dataset, words = pairs_dataset(rows), tokenizer()
    trainer = PairwiseTrainer(model=model, args=args, train_dataset=dataset, processing_class=words, **more)
    return trainer, [trainer.data_collator(rows)]
