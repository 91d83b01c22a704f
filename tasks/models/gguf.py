"""Models in GGUF, llama.cpp's format: one file with weights, tokenizer and chat template, unpacked into a folder."""

import json
from pathlib import Path
from typing import Any

from tasks.config.errors import ConfigurationError
from tasks.models.licence import CARD
from tasks.store.hashed import file_sha256
from tasks.store.scratch import made_once

SUFFIX = ".gguf"
QUANTIZATION = "quantization_config"


def unpack(file: Path) -> Path:
    """Return a local folder with the model of a GGUF file, its quantized weights as the float32 numbers that they are.

    It is made once for each content and kept among the local copies. What the file says of its licence becomes a card.

    Raises:
        ConfigurationError: The file is missing or no GGUF, or transformers does not know its architecture.
    """
    if not file.is_file():
        raise ConfigurationError(f"GGUF file {file} does not exist: check the path")

    def make(folder: Path) -> None:
        _convert(file, folder)
        (folder / CARD).write_text(_card(file))

    return made_once(f"gguf-{file_sha256(file)}", make)


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{file} cannot be read as a causal model in GGUF ({type(error).__name__}: {error}): take the model's "
            "folder with safetensors"
        ) from error
    model.hf_quantizer, model.is_quantized = None, False
    model.config.quantization_config = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop(QUANTIZATION, None)
    path.write_text(json.dumps(config, indent=2))


def _card(file: Path) -> str:
    """Return a model card that says what the file says of its licence and name."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    texts = {name: str(fields[name].contents()) for name in ("general.license", "general.name") if name in fields}
    head = f"license: {texts['general.license']}\n" if "general.license" in texts else ""
    return f"---\n{head}---\n{texts.get('general.name', file.name)}, unpacked from {file.name}.\n"
