"""Low-rank adapters: merged into the model that is stored, kept beside it as files of their own, or stored alone."""

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.store.artifacts import Artifact, Content
from tasks.store.copies import fetch
from tasks.store.scratch import made_once

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""Folder of an adapter, in a working folder and in an artifact. peft and vLLM load it over the base model."""


def merged(start: "PreTrainedModel", adapter: Path) -> "PreTrainedModel":
    """Return a float32 copy of a model with an adapter merged into its weights: W + alpha / r * B A."""
    from peft import PeftModel

    model = copy.deepcopy(start).float()
    return PeftModel.from_pretrained(model, adapter, torch_device="cpu").merge_and_unload()


def adapter_files(folder: Path, base: str, within: str = f"{ADAPTER}/") -> dict[str, Content]:
    """Return the files of an adapter, none where no adapter was saved.

    The adapter's configuration names the base model by its digest, where peft wrote a path.

    Args:
        folder: Where peft saves an adapter; need not exist.
        base: Digest of the base model.
        within: Folder of the files in their artifact.
    """
    if not folder.exists():
        return {}
    config = json.loads((folder / "adapter_config.json").read_text())
    modules = config["target_modules"]
    config["base_model_name_or_path"] = base
    config["target_modules"] = modules if isinstance(modules, str) else sorted(modules)  # a set, in no order
    return {
        f"{within}adapter_config.json": json.dumps(config, indent=2, sort_keys=True).encode(),
        f"{within}adapter_model.safetensors": folder / "adapter_model.safetensors",
    }


def merged_folder(adapter: Artifact, base: Path, trust_remote_code: bool) -> Path:
    """Return a local folder of the model that an adapter stored alone makes of its base, merged in float32.

    It is made once and kept among the local copies; the adapter's digest names its base too.

    Args:
        adapter: The adapter's artifact.
        base: Folder of its base model.
        trust_remote_code: Run code that comes with the base.
    """
    from tasks.models.weights import load_weights

    def merge(folder: Path) -> None:
        shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
        model = merged(load_weights(base, "policy", "float32", trust_remote_code), fetch(adapter))
        model.config.dtype = "float32"
        model.save_pretrained(folder)

    return made_once(f"{adapter.digest}-merged", merge)
