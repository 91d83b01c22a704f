"""Our trainer of reward models on a tiny model, and TRL's, which forwards both sides of every pair."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from random_groups import tokenizer
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)
from trl import RewardConfig, RewardTrainer

from tasks.config.settings import RewardModelConfig
from tasks.rewards.model import why_head_unknown
from tasks.training.reward_examples import open_preferences
from tasks.training.reward_trainer import StepRewardTrainer
from tasks.training.step_trainer import StepCollator, shares, step_arguments

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def llama(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    tokens = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForSequenceClassification(
        LlamaConfig(**{**SHAPE, **tokens, "num_labels": 1, "initializer_range": 0.3, **changes})
    )
    return model.eval()


def neox() -> PreTrainedModel:
    """Return a model that computes in the type of its weights throughout: Llama's norms round to float32."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(**SHAPE, vocab_size=40, pad_token_id=0, num_labels=1, initializer_range=0.3)
    return GPTNeoXForSequenceClassification(config).eval()


def pairs(prompts: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Return pairs of three completions of each prompt, of many lengths; every other prompt has one pair alone."""
    random = np.random.default_rng(seed)

    def ids(least: int, most: int) -> list[int]:
        return random.integers(3, 40, int(random.integers(least, most))).tolist()

    rows = []
    for number in range(prompts):
        prompt = ids(1, 20)
        a, b, c = (prompt + ids(1, 12) for _ in range(3))
        own = [(a, b)] if number % 2 else [(a, b), (b, c), (a, c)]
        rows += [
            {"prompt_id": f"{number:02d}", "chosen_ids": x, "rejected_ids": y, "margin": 0.25 * number} for x, y in own
        ]
    return rows


def arguments(folder: Any, **changes: Any) -> dict[str, Any]:
    """Return TRL's arguments for a CPU, without anything that is random but the order."""
    settings = {
        **{"output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False, "max_length": None},
        **{"gradient_checkpointing": False, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"},
        **{"learning_rate": 1e-2, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0},
    }
    return settings | changes


def ours(
    folder: Any, model: PreTrainedModel, rows: list[dict[str, Any]], config: RewardModelConfig, **more: Any
) -> StepRewardTrainer:
    """Return our trainer, set up as `tasks.reward_model.fit` does."""
    unknown = why_head_unknown(model)
    collator = StepCollator(open_preferences(model, Dataset.from_list(rows), config, unknown), config)
    args = RewardConfig(**arguments(folder, seed=config.seed, **more) | step_arguments(collator))
    return StepRewardTrainer(
        config=config,
        head_unknown=unknown is not None,
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=shares(collator),
        processing_class=tokenizer(),
    )


def theirs(folder: Any, model: PreTrainedModel, rows: list[dict[str, Any]], **more: Any) -> RewardTrainer:
    """Return TRL's trainer."""
    kept = [{name: row[name] for name in row if name in ("chosen_ids", "rejected_ids", "margin")} for row in rows]
    args = RewardConfig(**arguments(folder, **more))
    return RewardTrainer(model=model, args=args, train_dataset=Dataset.from_list(kept), processing_class=tokenizer())


def gradient(trainer: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, float]:
    """Return the gradient of all trained weights in a row, and the loss, of one step."""
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1  # as amid a training
    loss = trainer.training_step(trainer.model, batch)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]), float(loss)


def weights(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def without_margins(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "margin"} for row in rows]
