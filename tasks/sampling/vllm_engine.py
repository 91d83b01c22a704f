"""vLLM's offline `LLM`, within this process on CPU, in one of its own on a GPU."""

import contextlib
import logging
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.settings import Decoding
from tasks.lm.memory import free_memory
from tasks.lm.tokens import encode, load_tokenizer
from tasks.models.form import stop_ids
from tasks.sampling.samples import SHORT_TEXT, Sample, check_number
from tasks.store.scratch import without_patterns

if TYPE_CHECKING:
    from vllm import LLM

DRAWN_BY = {"temperature", "top_p", "top_k"}
"""Settings that vLLM calls the same."""


class VllmEngine:
    """vLLM with prefix caching, so that a prompt is computed once for its k completions."""

    name = "vllm"

    def __init__(self, model: Path, decoding: Decoding, max_model_len: int, trust_remote_code: bool) -> None:
        """Start the engine."""
        on_cpu = prepare_import()
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
        stop_engine(self.llm)
        del self.llm
        self.links.close()
        free_memory()


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


def stop_engine(llm: "LLM") -> None:
    """Stop vLLM's engine, whose memory is free once nothing refers to it any more."""
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()  # waits for its process: only then is a GPU's memory free
    cleanup_dist_env_and_memory()


def prepare_import() -> bool:
    """Set what vLLM reads when it is imported; return whether it will run on the CPU."""
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # longer than its tokenizer's model_max_length
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # before vLLM reads the variable itself
    return on_cpu
