"""What the benchmarks of DPO train: a model, and prompts with completions and pairs like the paper's."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _models import build
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tasks.config.training import DpoConfig
from tasks.selection.threshold import select_pairs
from tasks.store.artifacts import Artifact
from tasks.training.dpo_examples import sequence_id
from tasks.training.packs import DpoExample

K = 16
"""Completions sampled a prompt."""


class World(NamedTuple):
    """What both sides train."""

    model: Artifact
    groups: list[dict[str, Any]]
    config: DpoConfig
    folder: Path
    micro_batch: int
    """Pairs that TRL forwards at once."""
    device: str = "cpu"


def draw(prompts: int, vocabulary: int, tokens: int = 256) -> list[dict[str, Any]]:
    """Return the prompts that have pairs, as the rows that DPO reads; completions have so many tokens on average."""
    random = np.random.default_rng(3)  # a draw whose pairs are like the expected ones
    spread = np.where(random.random(prompts) < 0.225, 0.778, 0.359)
    pairs = select_pairs(random.normal(size=(prompts, K)) * spread[:, None], tau=1.0, eta=0.85)
    active = np.unique(pairs.row)
    prompt_lengths = iter(lengths(random, len(active), 175, 0.95))
    completion_lengths = iter(lengths(random, len(active) * K, tokens, 0.5))
    groups = []
    for row in active:
        chosen, rejected = pairs.chosen[pairs.row == row], pairs.rejected[pairs.row == row]
        used = np.union1d(chosen, rejected)
        prompt = random.integers(2, vocabulary, next(prompt_lengths)).tolist()
        completions = [[*random.integers(2, vocabulary, next(completion_lengths) - 1).tolist(), 0] for _ in used]
        group = {"prompt_id": f"{row:08d}", "prompt": prompt, "completion_ids": used, "completions": completions}
        group["sequence_ids"] = [sequence_id(prompt, tuple(ids)) for ids in completions]
        groups.append(group | {"chosen": np.searchsorted(used, chosen), "rejected": np.searchsorted(used, rejected)})
    return groups


def lengths(random: np.random.Generator, count: int, mean: float, spread: float) -> np.ndarray:
    """Return lengths in a random order, evenly over a gamma distribution that is cut at 8 and 512 tokens.

    Its standard deviation, in units of the mean, is 0.95 for the prompts of HH (helpful-base, GPT-NeoX's tokenizer) and
    0.5 for Tulu 2's answers to AlpacaEval.
    """
    drawn = random.gamma(spread**-2, mean * spread**2, 100_000)
    drawn *= mean / drawn.clip(8, 512).mean()  # what the cut takes away
    return random.permutation(np.quantile(drawn.clip(8, 512), (np.arange(count) + 0.5) / count).astype(int))


def as_groups(rows: list[dict[str, Any]], ref_logps: dict[str, float] | None = None) -> list[DpoExample]:
    """Return rows as groups."""
    of = {} if ref_logps is None else ref_logps
    return [
        DpoExample(
            row["prompt"],
            row["completions"],
            [of.get(id_, 0.0) for id_ in row["sequence_ids"]],
            row["chosen"].tolist(),
            row["rejected"].tolist(),
        )
        for row in rows
    ]


def write_model(folder: Path, config: Any, dtype: str = "float32", device: str = "cpu") -> Artifact:
    """Write a model with random weights, drawn on a device, and a tokenizer."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(config.vocab_size)}, "w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w1").save_pretrained(folder)
    build(AutoModelForCausalLM, config, device, getattr(torch, dtype)).save_pretrained(folder)
    return Artifact(kind="model", uri=str(folder), digest=folder.name)
