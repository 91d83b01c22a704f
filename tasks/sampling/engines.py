"""Sampling engines: vLLM's offline `LLM`, and transformers' `generate` where vLLM is not installed.

Both draw completions of a prompt from the same distribution, from token ids to token ids. A completion's seed is its
prompt's plus its number, so that the first ones do not depend on how many are drawn. Prompts are added at any time and
come back as they are done, so that an engine never has to run dry.
"""

import contextlib
import gc
import importlib.util
import logging
import math
import os
import warnings
from collections import deque
from pathlib import Path
from typing import Any, Protocol

from tasks.config.errors import ConfigurationError
from tasks.config.settings import Decoding
from tasks.lm.tokens import encode, load_tokenizer
from tasks.models.form import stop_ids
from tasks.models.loading import device, load_policy
from tasks.models.tokenizer_checks import PROBE
from tasks.pipeline.progress import log
from tasks.sampling.samples import Sample, check_number, cut
from tasks.sampling.seeded_sampling import seeded_sampling
from tasks.store.scratch import without_patterns

SHORT_TEXT = PROBE[:40]
"""Text after which logits are looked at, whether they are numbers."""
DRAWN_BY = {"temperature", "top_p", "top_k"}
"""Settings that both engines call the same."""


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


class VllmEngine:
    """vLLM with prefix caching, so that a prompt is computed once for its k completions."""

    name = "vllm"

    def __init__(self, model: Path, decoding: Decoding, max_model_len: int, trust_remote_code: bool) -> None:
        """Start the engine: within this process on CPU, in one of its own on a GPU."""
        import torch

        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # longer than its tokenizer's model_max_length
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # before vLLM reads the variable itself
        from vllm import LLM

        self.links = contextlib.ExitStack()
        arguments: dict[str, Any] = {
            "model": str(self.links.enter_context(without_patterns(model))),
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
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            self.llm = LLM(**{**cache_arguments(arguments, decoding), **arguments})
        self.decoding = decoding
        tokenizer = load_tokenizer(model, trust_remote_code)
        self.stop_token_ids = sorted(stop_ids(model, tokenizer))
        config = self.llm.llm_engine.vllm_config
        sequences = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        self.capacity = math.ceil(sequences / decoding.k)
        self._check_logits(encode(tokenizer, SHORT_TEXT)[: max_model_len - 1])

    def _check_logits(self, ids: list[int]) -> None:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        greedy = SamplingParams(max_tokens=1, temperature=0, logprobs=0)
        [request] = self.llm.generate([tokens_input(ids)], greedy, use_tqdm=False)
        check_number(request.outputs[0].cumulative_logprob or 0.0, self.decoding.dtype)

    def add(self, number: int, prompt: list[int], seed: int, count: int) -> None:
        """Queue a prompt's completions; of several, vLLM seeds each with the seed plus its index."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        settings = self.decoding
        parameters = SamplingParams(
            n=count,
            max_tokens=settings.max_new_tokens,
            stop=list(settings.stop),
            stop_token_ids=self.stop_token_ids,
            seed=seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **settings.model_dump(include=DRAWN_BY),
        )
        self.llm.llm_engine.add_request(str(number), tokens_input(prompt), parameters)

    def step(self) -> list[tuple[int, list[Sample]]]:
        """Draw one token for every sequence under way."""
        done = []
        for request in self.llm.llm_engine.step():
            outputs = sorted(request.outputs, key=lambda o: o.index)
            samples = [Sample(o.text, list(o.token_ids), str(o.finish_reason)) for o in outputs]
            done.append((int(request.request_id), samples))
        return done

    def close(self) -> None:
        """Stop the engine and free its memory."""
        from vllm.distributed import cleanup_dist_env_and_memory

        del self.llm
        self.links.close()
        cleanup_dist_env_and_memory()
        gc.collect()


def cache_arguments(arguments: dict[str, Any], decoding: Decoding) -> dict[str, int]:
    """Return how many sequences vLLM shall work on at once, `max_num_seqs`; on CPU also the bytes of its KV cache.

    There are as many sequences as the cache is expected to hold, at most 1024 on a GPU and 256 on CPU, where they get a
    quarter of the free memory at most. On average a sequence is half way to its limit, and the k of a prompt share the
    prompt; if vLLM runs out of room all the same, some wait. What arguments and environment say of the cache holds.
    """
    from vllm import EngineArgs
    from vllm.platforms import current_platform

    config, on_cpu = EngineArgs(**arguments).create_engine_config(), current_platform.is_cpu()
    model, parallel, cache = config.model_config, config.parallel_config, config.cache_config
    heads, layers = model.get_num_kv_heads(parallel), model.get_num_layers(parallel)
    block = 2 * layers * heads * model.get_head_size() * model.dtype.itemsize * cache.block_size  # bytes
    memory, room = current_platform.get_device_total_memory(), cache.kv_cache_memory_bytes
    most = arguments.get("max_num_seqs", 256 if on_cpu else 1024)
    if room is None and on_cpu:
        free = memory - int(current_platform.get_current_memory_usage())
        room = min((most + 1) * math.ceil(model.max_model_len / cache.block_size) * block, free // 4)
    elif room is None:
        weights = sum(file.stat().st_size for file in Path(arguments["model"]).glob("*.safetensors"))
        room = int(memory * cache.gpu_memory_utilization) - weights // parallel.world_size
    new = min(decoding.max_new_tokens, model.max_model_len)
    length = (model.max_model_len - new) / decoding.k + new / 2
    sequences = max(1, min(most, room // (block * math.ceil(length / cache.block_size))))
    return {"max_num_seqs": sequences, **({"kv_cache_memory_bytes": room} if on_cpu else {})}


class TransformersEngine:
    """`generate`, one prompt at a time: slow, and everywhere."""

    name = "transformers"
    capacity = 1

    def __init__(self, model: Path, decoding: Decoding, trust_remote_code: bool) -> None:
        """Load the policy onto the GPU where there is one."""
        import torch
        from transformers import GenerationConfig

        self.decoding = decoding
        self.waiting: deque[tuple[int, list[int], int, int]] = deque()
        self.tokenizer = load_tokenizer(model, trust_remote_code)
        self.model = load_policy(model, decoding.dtype, trust_remote_code).eval().to(device())
        self.end_ids = stop_ids(model, self.tokenizer)
        ids = torch.tensor([encode(self.tokenizer, SHORT_TEXT)], device=self.model.device)
        with torch.no_grad():
            check_number(float(self.model(input_ids=ids).logits[0, -1].float().log_softmax(-1).max()), decoding.dtype)
        # The model's own sampling defaults must not sway what the settings ask for; vLLM ignores them too.
        self.model.generation_config = GenerationConfig(
            eos_token_id=sorted(self.end_ids), pad_token_id=self.tokenizer.pad_token_id
        )

    def add(self, number: int, prompt: list[int], seed: int, count: int) -> None:
        """Queue a prompt."""
        self.waiting.append((number, prompt, seed, count))

    def step(self) -> list[tuple[int, list[Sample]]]:
        """Complete the prompt that has waited longest."""
        number, prompt, seed, count = self.waiting.popleft()
        return [(number, self._complete(prompt, seed, count))]

    def close(self) -> None:
        """Free the memory."""
        del self.model
        gc.collect()

    def _complete(self, ids: list[int], seed: int, count: int) -> list[Sample]:
        import torch
        from transformers import LogitsProcessorList

        settings = self.decoding
        stop = {"stop_strings": list(settings.stop), "tokenizer": self.tokenizer} if settings.stop else {}
        processors = seeded_sampling(settings, range(seed, seed + count), self.model.device)
        rows = self.model.generate(
            torch.tensor([ids] * count, device=self.model.device),
            attention_mask=torch.ones(count, len(ids), dtype=torch.long, device=self.model.device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList(processors),
            **stop,
        )
        return [cut(self.tokenizer, ids, row[len(ids) :].tolist(), self.end_ids, settings.stop) for row in rows]
