"""Reward models and SFT on HH's multi-turn conversations, against TRL's `RewardTrainer` and `SFTTrainer`.

Every side trains the same model for an epoch of the same examples, models in memory. Ours takes each optimizer step in
passes under a budget of tokens: of a pair, or of all pairs of a prompt, the prompt is computed once, and rows of like
length go together. TRL has the best of its settings that are tried: its own order, or batches of like length
(`group_by_length`, over a column of lengths that TRL does not make), each with micro-batches of several sizes.
The gradient of a step is compared, too.

    RSDPO_TEST_DATA=... python benchmarks/reward_model.py [--device cuda] [--model M] [--pairs 192] [--rounds 1] [--sft]
"""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from _side_by_side import Row, faster, in_turns, options, parse, peak, report
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from tasks.config.sections import DataSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.data.tally import Tally, read_records
from tasks.lm.turns import PLAIN_TEMPLATE
from tasks.reward_model import encode_preferences
from tasks.sft import encode_demonstrations
from tasks.training.reward_examples import open_preferences
from tasks.training.reward_trainer import StepRewardTrainer
from tasks.training.sft_trainer import Demonstrations, StepSFTTrainer
from tasks.training.step_trainer import StepCollator, shares, step_arguments

BATCH = 32
"""Examples an optimizer step."""
LONGEST = 1024
"""Tokens of a conversation."""
SHAPE = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}


class World(NamedTuple):
    """What is trained, and on what."""

    folder: str
    device: str
    tokenizer: PreTrainedTokenizerFast
    preferences: Dataset
    demonstrations: Dataset
    make: Callable[[type], Any]
    """Class of models -> the model."""


def read_pairs(wanted: int) -> pa.Table:
    """Return HH's first conversations of several turns, as a preferences table."""
    source = DataSource(path=f"{os.environ['RSDPO_TEST_DATA']}/hh-rlhf", split="test")
    rows = []
    for _, record in read_records(source, "preferences", Tally("hh-rlhf", 1.0)):
        if len(record.messages) > 1 and record.chosen != record.rejected:
            row = {"prompt_id": f"{len(rows):06d}", "messages": record.messages}
            rows.append(row | {"chosen": record.chosen, "rejected": record.rejected, "completion": record.chosen})
    picked = np.random.default_rng(0).permutation(len(rows))[:wanted]
    return pa.Table.from_pylist([rows[i] for i in sorted(picked)])


def make_world(folder: str, chosen: Any) -> World:
    """Return a model, or random weights with the vocabulary of GPT-NeoX, and the tokenized conversations."""
    if chosen.model:
        tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    else:
        path = f"{os.environ['RSDPO_TEST_DATA']}/tokenizers/20B_tokenizer.json"
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, eos_token="<|endoftext|>", pad_token="<|padding|>")
        tokenizer.bos_token = tokenizer.eos_token
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE

    def make(kind: Any) -> Any:
        torch.manual_seed(0)
        if chosen.model:
            model = kind.from_pretrained(chosen.model, **({} if kind is AutoModelForCausalLM else {"num_labels": 1}))
        else:
            config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, num_labels=1, **SHAPE)
            model = kind.from_config(config)
        model.config.pad_token_id = tokenizer.pad_token_id
        return model.eval().to(chosen.device)

    table = read_pairs(chosen.pairs)
    pairs, texts = encode_preferences(tokenizer, table), encode_demonstrations(tokenizer, table)
    preferences = [row for row in pairs.to_pylist() if max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= LONGEST]
    demonstrations = [row for row in texts.to_pylist() if len(row["input_ids"]) <= LONGEST]
    return World(
        folder, chosen.device, tokenizer, Dataset.from_list(preferences), Dataset.from_list(demonstrations), make
    )


def arguments(world: World, **changes: Any) -> dict[str, Any]:
    """Return TRL's arguments for a training that leaves nothing on disk."""
    on_gpu = world.device == "cuda"
    own = {"learning_rate": 1e-5, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_length": None}
    own |= {"gradient_checkpointing": False, "bf16": on_gpu, "use_cpu": not on_gpu, "dataloader_pin_memory": on_gpu}
    return {"output_dir": world.folder, "logging_steps": 1000, **own, **changes}


def our_reward(world: World) -> StepRewardTrainer:
    """Return our trainer of reward models."""
    config, model = RewardModelConfig(batch_size=BATCH), world.make(AutoModelForSequenceClassification)
    collator = StepCollator(open_preferences(model, world.preferences, config, None), config)
    return StepRewardTrainer(
        config=config,
        head_unknown=False,
        model=model,
        args=RewardConfig(**(arguments(world) | step_arguments(collator))),
        data_collator=collator,
        train_dataset=shares(collator),
        processing_class=world.tokenizer,
    )


def trl_reward(world: World, micro_batch: int, by_length: bool) -> RewardTrainer:
    """Return TRL's trainer of reward models."""
    rows = world.preferences.remove_columns("prompt_id")
    lengths = [max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
    return RewardTrainer(
        model=world.make(AutoModelForSequenceClassification),
        args=RewardConfig(**arguments(world, **_batches(micro_batch, by_length))),
        train_dataset=rows.add_column("length", lengths),
        processing_class=world.tokenizer,
    )


def our_sft(world: World) -> StepSFTTrainer:
    """Return our trainer of policies."""
    config, model = SftConfig(base_model="given", batch_size=BATCH), world.make(AutoModelForCausalLM)
    collator = StepCollator(Demonstrations(world.demonstrations, world.tokenizer.pad_token_id), config)
    return StepSFTTrainer(
        model=model,
        args=SFTConfig(**(arguments(world, completion_only_loss=True) | step_arguments(collator))),
        data_collator=collator,
        train_dataset=shares(collator),
        processing_class=world.tokenizer,
    )


def trl_sft(world: World, micro_batch: int, by_length: bool) -> SFTTrainer:
    """Return TRL's trainer of policies."""
    rows = world.demonstrations
    return SFTTrainer(
        model=world.make(AutoModelForCausalLM),
        args=SFTConfig(**arguments(world, completion_only_loss=True, **_batches(micro_batch, by_length))),
        train_dataset=rows.add_column("length", [len(row["input_ids"]) for row in rows]),
        processing_class=world.tokenizer,
    )


def _batches(micro_batch: int, by_length: bool) -> dict[str, Any]:
    strategy: dict[str, Any] = (
        {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False} if by_length else {}
    )
    accumulated = BATCH // micro_batch
    return {"per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": accumulated, **strategy}


def quiet(make: Callable[[World], Any], world: World) -> None:
    """Train without a word."""
    with contextlib.redirect_stdout(io.StringIO()):
        make(world).train()


def gradient_row(what: str, ours: Any, other: Any) -> Row:
    """Compare the gradients of a step of all that is given, in float32."""
    share = ours.data_collator([{"share": 0}])
    place = ours.data_collator.steps[0].tolist()
    found = []
    for trainer, batches in ((ours, [share]), (other, [other.data_collator([other.train_dataset[i] for i in place])])):
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        for batch in batches:
            trainer.training_step(trainer.model, batch)
        found.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    error = float((found[0] - found[1]).norm() / found[1].norm())
    return Row(f"{what}, gradient of a step: difference, bound", error, 1e-5, 1e-5 / error, 1.0)


def compare(what: str, ours: Any, other: Any, world: World, chosen: Any, least: float) -> list[Row]:
    """Compare an epoch with each of TRL's settings; the best of them is what counts."""
    sides: dict[str, Callable[[], None]] = {"ours": lambda: quiet(ours, world)}
    for by_length in (False, True):
        for micro in chosen.micro:
            name = f"micro-batches of {micro}" + (", like lengths" if by_length else "")
            sides[name] = lambda micro=micro, by=by_length: quiet(lambda own: other(own, micro, by), world)
    seconds = {name: float(np.median(own)) for name, own in in_turns(sides, chosen.rounds).items()}
    for name, value in seconds.items():
        print(f"  {what}, {name}: {value:.1f} s")
    mine = seconds.pop("ours")
    own_order = {name: value for name, value in seconds.items() if "like" not in name}
    return [
        faster(f"{what}, TRL's best settings", (mine, min(seconds.values())), least),
        faster(f"{what}, TRL's own order", (mine, min(own_order.values()))),
    ]


def main() -> None:
    """Time both sides, compare their gradients and report."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--pairs", type=int, default=192, help="conversations of several turns")
    parser.add_argument("--micro", type=int, nargs="+", default=[2, 4, 8], help="TRL's micro-batches")
    parser.add_argument("--sft", action="store_true", help="SFT alone")
    chosen = parse(parser)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="rs-dpo-benchmark-") as folder:
        world, rows = make_world(folder, chosen), []
        lengths = [len(row["chosen_ids"]) for row in world.preferences]
        facts: dict[str, Any] = {
            "model": chosen.model or f"Llama, {SHAPE}, random weights",
            "pairs": f"{len(lengths)} of HH with several turns, {np.mean(lengths):.0f} tokens on average",
        }
        if not chosen.sft:
            rows += compare("reward model, an epoch", our_reward, trl_reward, world, chosen, 1.8)
            rows.append(gradient_row("reward model", our_reward(world), trl_reward(world, BATCH, False)))
        rows += compare("SFT, an epoch", our_sft, trl_sft, world, chosen, 1.0)
        if peak():
            facts["peak of GPU memory"] = f"{peak():.1f} GB"
        report("Reward models and SFT", facts, rows, chosen)


if __name__ == "__main__":
    sys.exit(main())
