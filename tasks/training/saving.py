"""What a training leaves: its model in the type that keeps its update, and its adapter by itself.

Imports torch and transformers, so import it inside functions only.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tasks.config.training import Training
from tasks.models.adapters import ADAPTER, merged
from tasks.models.updates import measure_update, stored_type
from tasks.pipeline.jobs import Job
from tasks.training.trained_model import OUTPUT, UPDATE


def weight_dtype(config: Training) -> torch.dtype:
    """Return the type to load weights in: half precision for frozen ones only, so that small updates are not lost."""
    return getattr(torch, config.dtype) if config.lora is not None else torch.float32


def save_model(model: Any, weights: dict[str, torch.Tensor], tokenizer: Any, job: Job, config: Training) -> None:
    """Write a trained model in the type that keeps its update, the share that is kept, and its adapter by itself."""
    adapted = config.lora is not None
    if adapted:
        model.save_pretrained(job.folder / ADAPTER, state_dict=weights)
        model = model.get_base_model()
    start, new = _before_training(model, job, weight_dtype(config))
    if adapted:
        model = merged(start, job.folder / ADAPTER)
        weights = model.state_dict()
    before = ((name, weight) for name, weight in start.named_parameters() if name not in new)
    update = measure_update(before, weights)
    stored_in = stored_type(config.stored_dtype, config.dtype, update["kept"])
    save_weights(model, weights, tokenizer, job.folder / OUTPUT, stored_in)
    (job.folder / UPDATE).write_text(json.dumps({"stored": stored_in, "computed_in": config.dtype, **update}))


def save_weights(model: Any, weights: dict[str, torch.Tensor], tokenizer: Any, folder: Path, stored_in: str) -> None:
    """Write a model with given weights, and its tokenizer; the model itself is left as it is."""
    config, dtype = copy.deepcopy(model.config), getattr(torch, stored_in)
    config.pad_token_id, config.dtype = tokenizer.pad_token_id, dtype
    before, model.config = model.config, config
    try:
        model.save_pretrained(folder, state_dict=_rounded(weights, dtype))
    finally:
        model.config = before
    tokenizer.save_pretrained(folder)


def _rounded(weights: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return weights in a type; tied ones stay one tensor, which is then stored once."""
    once: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for value in weights.values():
        once.setdefault((value.data_ptr(), value.shape), value.to(dtype) if value.is_floating_point() else value)
    return {name: once[value.data_ptr(), value.shape] for name, value in weights.items()}


def _before_training(model: PreTrainedModel, job: Job, dtype: torch.dtype) -> tuple[PreTrainedModel, set[str]]:
    """Return the model that the training began with, on the CPU, and the names of the weights that were new to it."""
    start, loaded = type(model).from_pretrained(
        job.model,
        config=copy.deepcopy(model.config),
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=job.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # a head of two labels gave way to one with one
    )
    return start, {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
