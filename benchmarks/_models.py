"""Llamas with random weights, of a size that suits the device: nothing is downloaded."""

import argparse
from typing import Any

import torch
from transformers import LlamaConfig

TINY = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4}
ONE_BILLION = {
    **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
}
"""The shape of Llama 3.2 1B: 1.24 billion parameters with its vocabulary."""
SIZES: dict[str, tuple[int, dict[str, Any]]] = {"tiny": (1024, TINY), "1b": (128_256, ONE_BILLION)}
"""Name -> tokens of the vocabulary, and the shape."""


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a size."""
    parser.add_argument("--size", choices=SIZES, help="of the random model; 1b on a GPU, tiny otherwise")


def llama(size: str, **more: Any) -> LlamaConfig:
    """Return the configuration of a model of a size."""
    vocabulary, shape = SIZES[size]
    return LlamaConfig(**{"vocab_size": vocabulary, "max_position_embeddings": 2048, **shape, **more})


def build(kind: Any, config: Any, device: str, dtype: torch.dtype) -> Any:
    """Return a model with random weights that are drawn where it will run: on a CPU a billion takes a minute.

    Args:
        kind: A class of models, or an `AutoModel...`.
        config: Its configuration.
        device: Where.
        dtype: Type of the weights.
    """
    torch.manual_seed(0)
    make = getattr(kind, "from_config", None) or kind._from_config
    with torch.device(device):
        return make(config, dtype=dtype)
