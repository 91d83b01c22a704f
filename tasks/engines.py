"""Sampling engines: vLLM's offline `LLM`, and transformers' `generate` where vLLM is not installed.

Both draw k completions a prompt from the same distribution, seeded by prompt, from token ids to token ids.
"""

import gc
import importlib.util
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tasks.config import Decoding
from tasks.models import device, load_policy
from tasks.progress import log
from tasks.tokens import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Sample(NamedTuple):
    """One completion: its text, its ids as sampled (EOS included), and why it ended (`stop` or `length`)."""

    completion: str
    token_ids: list[int]
    finish_reason: str


class Engine(Protocol):
    """Draws completions from one policy."""

    name: str

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[list[Sample]]:
        """Return k samples for each prompt's token ids; a prompt's samples depend on its own seed only."""

    def close(self) -> None:
        """Free the engine's memory."""


def open_engine(model: Path, decoding: Decoding, max_model_len: int, trust_remote_code: bool = False) -> Engine:
    """Return the configured engine, loaded with a model.

    Args:
        model: Model folder.
        decoding: Settings; `engine = auto` takes vLLM where it is installed.
        max_model_len: Longest prompt plus completion, in tokens.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ValueError: vLLM was asked for and is not installed.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if decoding.engine == "vllm" and not installed:
        raise ValueError("sampling.engine = vllm, but vLLM is not installed: install it, or set engine to transformers")
    if decoding.engine == "auto" and not installed:
        log("vLLM is not installed: the slower transformers engine samples in its place")
    if decoding.engine == "transformers" or not installed:
        return TransformersEngine(model, decoding, trust_remote_code)
    return VllmEngine(model, decoding, max_model_len, trust_remote_code)


class VllmEngine:
    """vLLM with prefix caching, so that a prompt is computed once for its k completions."""

    name = "vllm"

    def __init__(self, model: Path, decoding: Decoding, max_model_len: int, trust_remote_code: bool) -> None:
        """Start the engine: within this process on CPU, in one of its own on a GPU."""
        import torch

        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # before vLLM reads the variable itself
        from vllm import LLM

        arguments: dict[str, Any] = {
            "dtype": decoding.dtype,
            "max_model_len": max_model_len,
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
            "enforce_eager": on_cpu,
            # Prompts in pieces make vLLM rewind the seeded generators, which CPU generators cannot.
            "enable_chunked_prefill": not on_cpu,
            "trust_remote_code": trust_remote_code,
            **decoding.extra,
        }
        self.decoding = decoding
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            self.llm = LLM(model=str(model), **arguments)

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[list[Sample]]:
        """Return k samples for each prompt's token ids."""
        from vllm import SamplingParams, TokensPrompt

        settings = self.decoding
        parameters = [
            SamplingParams(
                n=settings.k,
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k,
                max_tokens=settings.max_new_tokens,
                stop=list(settings.stop),
                seed=seed,
            )
            for seed in seeds
        ]
        requests = [TokensPrompt(prompt_token_ids=ids) for ids in prompts]
        outputs = self.llm.generate(requests, parameters, use_tqdm=False)
        return [
            [
                Sample(o.text, list(o.token_ids), str(o.finish_reason))
                for o in sorted(request.outputs, key=lambda o: o.index)
            ]
            for request in outputs
        ]

    def close(self) -> None:
        """Stop the engine and free its memory."""
        from vllm.distributed import cleanup_dist_env_and_memory

        del self.llm
        cleanup_dist_env_and_memory()
        gc.collect()


class TransformersEngine:
    """`generate`, one prompt at a time: slow, and everywhere."""

    name = "transformers"

    def __init__(self, model: Path, decoding: Decoding, trust_remote_code: bool) -> None:
        """Load the policy onto the GPU where there is one."""
        from transformers import GenerationConfig

        self.decoding = decoding
        self.tokenizer = load_tokenizer(model, trust_remote_code)
        self.model = load_policy(model, decoding.dtype, trust_remote_code).eval().to(device())
        ends = self.model.generation_config.eos_token_id
        self.end_ids = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        # The model's own sampling defaults must not sway what the settings ask for; vLLM ignores them too.
        self.model.generation_config = GenerationConfig(
            eos_token_id=sorted(self.end_ids), pad_token_id=self.tokenizer.pad_token_id
        )

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[list[Sample]]:
        """Return k samples for each prompt's token ids."""
        return [self._complete(ids, seed) for ids, seed in zip(prompts, seeds, strict=True)]

    def close(self) -> None:
        """Free the memory."""
        del self.model
        gc.collect()

    def _complete(self, ids: list[int], seed: int) -> list[Sample]:
        import torch

        settings = self.decoding
        drawn: dict[str, Any] = {"do_sample": False}
        if settings.temperature > 0:
            drawn = {
                "do_sample": True,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "top_k": settings.top_k,
            }
        stop = {"stop_strings": list(settings.stop), "tokenizer": self.tokenizer} if settings.stop else {}
        torch.manual_seed(seed)
        rows = self.model.generate(
            torch.tensor([ids] * settings.k, device=self.model.device),
            attention_mask=torch.ones(settings.k, len(ids), dtype=torch.long, device=self.model.device),
            max_new_tokens=settings.max_new_tokens,
            **drawn,
            **stop,
        )
        return [cut(self.tokenizer, ids, row[len(ids) :].tolist(), self.end_ids, settings.stop) for row in rows]


def cut(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[int], ids: list[int], end_ids: set[int], stop: Sequence[str]
) -> Sample:
    """Return the sample within ids generated after a prompt.

    Its ids go up to and including EOS, or the token that completes a stop string; its text is what they add to the
    prompt's, up to the stop string.
    """
    before = len(tokenizer.decode(prompt, skip_special_tokens=True))

    def text_of(kept: list[int]) -> str:
        return str(tokenizer.decode(prompt + kept, skip_special_tokens=True))[before:]

    end = next((place for place, token in enumerate(ids) if token in end_ids), None)
    kept = ids if end is None else ids[: end + 1]
    text = text_of(kept)
    places = [place for string in stop if (place := text.find(string)) >= 0]
    if not places:
        return Sample(text, kept, "length" if end is None else "stop")
    needed = next(n for n in range(1, len(kept) + 1) if any(string in text_of(kept[:n]) for string in stop))
    return Sample(text[: min(places)], kept[:needed], "stop")
