"""The other side of DPO's benchmark: TRL's `DPOTrainer`, with padding as it has it, and without any as written here."""

import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from _pairs import World, as_groups
from datasets import Dataset
from pairwise import PairwiseTrainer, pair_rows
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_flash_attn_2_available
from trl import DPOConfig as DpoArguments

BATCH = 64
"""Pairs an optimizer step."""
FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")


def trl_arguments(world: World, folder: str, **changes: Any) -> DpoArguments:
    """Return TRL's arguments for the training that ours is compared with."""
    on_gpu = world.device == "cuda"
    arguments = {
        "output_dir": folder,
        "beta": world.config.beta,
        "learning_rate": world.config.learning_rate,
        "per_device_train_batch_size": world.micro_batch,
        "gradient_accumulation_steps": BATCH // world.micro_batch,
        "num_train_epochs": 1,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "bf16": world.config.dtype == "bfloat16",
        "max_length": None,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    return DpoArguments(**arguments | changes)


class FlatTrainer(PairwiseTrainer):
    """TRL's loss of pairs that are joined to one row without padding, which is what its `padding_free` promises.

    Attention stays within a sequence by its positions: with FlashAttention 2, where it is installed, it costs what the
    sequences cost by themselves; elsewhere a mask of all tokens against all does it, which grows with their square.
    """

    def __init__(self, **arguments: Any) -> None:
        """Take TRL's arguments."""
        super().__init__(**arguments)
        if self.ref_model is not None:
            self.ref_model = flat(self.ref_model)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        return super()._compute_loss(flat(model), inputs, return_outputs)


def flat(model: Any) -> Callable[..., Any]:
    """Return a call that joins the rows of a batch for the model, and gives what it says of them as rows again."""

    def call(input_ids: Any, attention_mask: Any, labels: Any, use_cache: bool, fused_lm_head: bool) -> Any:
        mask = attention_mask.bool()
        shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # the last token of a row asks for nothing
        positions = attention_mask.cumsum(1) - 1
        joined = {"input_ids": input_ids, "position_ids": positions, "shift_labels": shifted}
        found = model(**{name: values[mask][None] for name, values in joined.items()}, fused_lm_head=fused_lm_head)
        given = {name: values for name in FIELDS if (values := getattr(found, name)) is not None}
        rows = {name: v.new_zeros(mask.shape).masked_scatter(mask, v)[:, :-1] for name, v in given.items()}
        return SimpleNamespace(**dict.fromkeys(FIELDS) | rows)

    return call


def attention(world: World) -> str:
    """Return the attention of the side without padding."""
    return "flash_attention_2" if world.device == "cuda" and is_flash_attn_2_available() else "sdpa"


def trl_trainer(world: World, kind: type[PairwiseTrainer] = PairwiseTrainer, **changes: Any) -> PairwiseTrainer:
    """Return TRL's trainer of the pairs, a reference model beside the policy, both loaded from disk."""
    own = {"attn_implementation": attention(world)} if kind is FlatTrainer else {}
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(world.model.uri, dtype=dtype, **own)
        for dtype in (torch.float32, world.config.dtype)
    )
    rows = pair_rows(as_groups(world.groups), with_ref=False)
    for row in rows:
        row["length"] = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    return kind(
        model=policy,
        ref_model=reference,
        args=trl_arguments(world, tempfile.mkdtemp(dir=world.folder), **changes),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(world.model.uri),
    )


def trl_epoch(world: World, kind: type[PairwiseTrainer] = PairwiseTrainer, **changes: Any) -> None:
    """Train with TRL, from the model on disk to the trained one there."""
    trainer = trl_trainer(world, kind, **changes)
    trainer.train()
    trainer.save_model()


def heeds_padding_free(world: World) -> bool:
    """Tell whether the installed TRL does what `padding_free` asks for: 1.16 accepts it, and pads all the same."""
    trainer = trl_trainer(world._replace(groups=world.groups[:1]), padding_free=True)
    return bool(trainer.padding_free)
