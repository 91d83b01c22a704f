"""Sampling engines: vLLM's offline `LLM`, and transformers' `generate` where vLLM is not installed.

Both draw completions of a prompt from the same distribution, from token ids to token ids. A completion's seed is its
prompt's plus its number, so that the first ones do not depend on how many are drawn. Prompts are added at any time and
come back as they are done, so that an engine never has to run dry.
"""

import importlib.util
from pathlib import Path
from typing import Protocol

from tasks.config.errors import ConfigurationError
from tasks.config.settings import Decoding
from tasks.pipeline.progress import log
from tasks.sampling.samples import Sample
from tasks.sampling.transformers_engine import TransformersEngine
from tasks.sampling.vllm_engine import VllmEngine


class Engine(Protocol):
    """Draws completions from one policy."""

    name: str
    capacity: int
    """Prompts that it works on at once, k completions each."""

    def add(self, number: int, prompt: list[int], seed: int, count: int) -> None:
        """Take a prompt's token ids, under a number of the caller's, to draw `count` samples with seeds from `seed` on.

        A sample depends on its own seed only: seed, seed + 1, ...
        """

    def step(self) -> list[tuple[int, list[Sample]]]:
        """Work for a moment; return the numbers of the prompts that this completed, with their samples by seed."""

    def close(self) -> None:
        """Free the engine's memory."""


def open_engine(model: Path, decoding: Decoding, max_model_len: int, trust_remote_code: bool = False) -> Engine:
    """Return the configured engine, loaded with a model.

    Args:
        model: Model folder.
        decoding: Settings; `engine = auto` takes vLLM where it is installed, for a device that is there.
        max_model_len: Longest prompt plus completion, in tokens.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ConfigurationError: vLLM was asked for and is not installed.
    """
    import torch

    installed = importlib.util.find_spec("vllm") is not None
    # A build for CUDA does not start where no GPU is seen, as in runs on the pool of pipelines.
    usable = installed and (torch.version.cuda is None or torch.cuda.is_available())
    if decoding.engine == "vllm" and not installed:
        raise ConfigurationError(
            "sampling.engine = vllm, but vLLM is not installed: install it, or set engine to transformers"
        )
    if decoding.engine == "auto" and not usable:
        why = "vLLM was built for CUDA, and no GPU is seen" if installed else "vLLM is not installed"
        log(f"{why}: the slower transformers engine samples in its place")
    if decoding.engine == "transformers" or (decoding.engine == "auto" and not usable):
        return TransformersEngine(model, decoding, trust_remote_code)
    return VllmEngine(model, decoding, max_model_len, trust_remote_code)
