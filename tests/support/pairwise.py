"""The other way to train on pairs, to compare with: TRL's `DPOTrainer`, which forwards both sides of each pair."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import trl.trainer.utils
from datasets import Dataset
from trl import DPOTrainer

from tasks.training.packs import DpoExample, Piece


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
