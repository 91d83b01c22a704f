"""The KV cache: how many sequences vLLM works on at once."""

import pytest

from tasks.config.settings import Decoding
from tasks.sampling.vllm_engine import cache_arguments

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCK = 128 * 5 * 2 * 4 * 32 * 4  # 128 tokens x 5 layers x key and value x 4 heads x 32 dims x 4 bytes


def for_cache(test_data) -> tuple[dict, Decoding]:
    arguments = {"model": str(test_data / "stories260k"), "dtype": "float32", "max_model_len": 512}
    return {**arguments, "enforce_eager": True, "block_size": 128}, Decoding(k=16, max_new_tokens=256)


def test_vllm_works_on_as_many_sequences_as_its_cache_holds(test_data):
    pytest.importorskip("vllm")
    arguments, decoding = for_cache(test_data)
    ten_blocks = 10 * BLOCK
    # A sequence: 256 / 16 tokens of the prompt and 256 / 2 of the completion, two blocks.
    assert cache_arguments({**arguments, "kv_cache_memory_bytes": ten_blocks}, decoding)["max_num_seqs"] == 5
    assert cache_arguments({**arguments, "kv_cache_memory_bytes": 1000 * ten_blocks}, decoding)["max_num_seqs"] == 256
    assert cache_arguments({**arguments, "kv_cache_memory_bytes": 1}, decoding)["max_num_seqs"] == 1


def test_the_cache_on_cpu_holds_every_sequence_or_a_quarter_of_the_memory(test_data, monkeypatch):
    pytest.importorskip("vllm")
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("the cache of a GPU takes what its memory leaves")
    arguments, decoding = for_cache(test_data)
    found = cache_arguments(arguments, decoding)
    assert found == {"max_num_seqs": 256, "kv_cache_memory_bytes": 257 * 4 * BLOCK}
    few = cache_arguments({**arguments, "max_num_seqs": 3}, decoding)
    assert few == {"max_num_seqs": 3, "kv_cache_memory_bytes": 4 * 4 * BLOCK}
    used = current_platform.get_device_total_memory() - 80 * BLOCK
    monkeypatch.setattr(current_platform, "get_current_memory_usage", lambda: used)
    assert cache_arguments(arguments, decoding) == {"max_num_seqs": 10, "kv_cache_memory_bytes": 20 * BLOCK}
