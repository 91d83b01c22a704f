"""Low-rank adapters: merged into the model that is stored, and kept beside it as files of their own."""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.store.artifacts import Artifact, Content

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""Folder of an adapter, in a working folder and in an artifact. peft and vLLM load it over the base model."""


def merged(start: "PreTrainedModel", adapter: Path) -> "PreTrainedModel":
    """Return a float32 copy of a model with an adapter merged into its weights: W + alpha / r * B A."""
    from peft import PeftModel

    model = copy.deepcopy(start).float()
    return PeftModel.from_pretrained(model, adapter, torch_device="cpu").merge_and_unload()


def adapter_files(folder: Path, start: Artifact) -> dict[str, Content]:
    """Return the files of an adapter, none where no adapter was saved.

    The adapter's configuration names the base model by its digest, where peft wrote a path.

    Args:
        folder: Where peft saves an adapter; need not exist.
        start: The base model.
    """
    if not folder.exists():
        return {}
    config = json.loads((folder / "adapter_config.json").read_text())
    modules = config["target_modules"]
    config["base_model_name_or_path"] = start.digest
    config["target_modules"] = modules if isinstance(modules, str) else sorted(modules)  # a set, in no order
    return {
        f"{ADAPTER}/adapter_config.json": json.dumps(config, indent=2, sort_keys=True).encode(),
        f"{ADAPTER}/adapter_model.safetensors": folder / "adapter_model.safetensors",
    }
