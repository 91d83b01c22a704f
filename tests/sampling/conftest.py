"""Fixtures for tests of sampling."""

import shutil

import pytest
from engine_draws import LIMIT

from tasks.config.settings import Decoding
from tasks.lm.tokens import load_tokenizer
from tasks.sampling.engines import open_engine
from tasks.sampling.transformers_engine import TransformersEngine
from tasks.sampling.vllm_engine import VllmEngine


@pytest.fixture(scope="session")
def tokenizer(test_data):
    return load_tokenizer(test_data / "stories260k")


@pytest.fixture(scope="session")
def vllm(test_data, tmp_path_factory):
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("models") / "run[lr=1e-5]"  # vLLM itself looks for weights by a pattern
    shutil.copytree(test_data / "stories260k", folder, copy_function=shutil.copyfile)
    engine = open_engine(folder, Decoding(engine="auto"), LIMIT)
    assert isinstance(engine, VllmEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def transformers(test_data):
    engine = open_engine(test_data / "stories260k", Decoding(engine="transformers"), LIMIT)
    assert isinstance(engine, TransformersEngine)
    return engine


@pytest.fixture(params=["vllm", "transformers"])
def engine(request):
    """Return each engine; a test sets its own decoding, because vLLM takes seconds to start."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def prompts(tokenizer):
    texts = ["Once upon a time", "Lily saw a", "Tim was a big dog. One day,"]
    return [[1, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
