"""Stored models as local folders, tokenizers, policies; and the device that runs them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.lm.context import context_length
from tasks.lm.tokens import load_tokenizer
from tasks.models.adapters import ADAPTER, merged_folder
from tasks.models.form import small_files
from tasks.models.weight_files import weight_files
from tasks.models.weights import load_weights
from tasks.store.artifacts import Artifact, Content
from tasks.store.copies import fetch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def trusts_remote_code(model: Artifact) -> bool:
    """Tell whether code that comes with a model may run: as its source's configuration said."""
    return bool(model.stats.get("trust_remote_code", False))


def model_folder(model: Artifact, weights: bool = True) -> Path:
    """Return a local folder with a model's verified files, all but the weights where those are not wanted."""
    if model.kind == ADAPTER:
        base = Artifact.model_validate(model.stats["base"])
        if not weights:
            return model_folder(base, weights=False)
        return merged_folder(model, model_folder(base), trusts_remote_code(model))
    return fetch(model, weights) if "://" in model.uri else Path(model.uri)


def longest(model: Artifact, max_length: int) -> int:
    """Return the most tokens of a sequence to train a model on: `max_length`, or its context where that is shorter."""
    return min(max_length, context_length(model_folder(model, weights=False)))


def model_tokenizer(model: Artifact) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a stored model."""
    return load_tokenizer(model_folder(model, weights=False), trusts_remote_code(model))


def load_policy(folder: Path, dtype: "torch.dtype | str", trust_remote_code: bool) -> "PreTrainedModel":
    """Load a causal model from safetensors, every weight of it and no other."""
    return load_weights(folder, "policy", dtype, trust_remote_code)


def device() -> str:
    """Return the device to run models on: of several processes, each has its own."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def trained_files(folder: Path, with_code: bool) -> dict[str, Content]:
    """Return the files of a folder that a trainer saved, ready to commit."""
    names = small_files(folder, load_tokenizer(folder, with_code), with_code)
    return {name: folder / name for name in sorted({*names, *weight_files(folder)})}
