"""Scoring engines: what computes a reward model's rewards, transformers with shared prompts, or vLLM.

Both read the same token ids, so that in float32 their rewards agree to 1e-4 and are in one table. vLLM takes a model
only where its rewards were compared with those of transformers. Imports torch, so import it inside functions only.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.settings import ScoringConfig
from tasks.lm.batches import Sequences
from tasks.lm.lengths import ANY_LENGTH
from tasks.lm.memory import free_memory
from tasks.pipeline.progress import log
from tasks.rewards.model import CompletionRewards
from tasks.rewards.reward_model import RewardModel
from tasks.rewards.vllm_rewards import VllmRewards

EQUAL, ROUNDED = 1e-4, 0.05
"""How far apart the rewards of both engines may be in float32 and in half precision, as a share of the largest."""
PROMPT, LONGEST = 40, 512
"""Of the sequences that are compared: tokens of the prompt that they share, above a block of the cache; most tokens."""
DOES_NOT_RUN = (ValueError, RuntimeError, NotImplementedError, KeyError, AssertionError)
"""What vLLM raises for a model that it does not know, or has no kernels for."""


@contextlib.contextmanager
def on_engine(model: RewardModel, scoring: ScoringConfig) -> Iterator[None]:
    """Have a reward model's rewards computed by the configured engine, and free it afterwards.

    `auto` is transformers, since on no device vLLM measured faster (docs/performance.md).

    Args:
        model: The reward model, on transformers.
        scoring: The engine, and the type of the weights.

    Raises:
        ConfigurationError: vLLM was asked for, and is not installed, cannot run the model, or gives other rewards.
    """
    if scoring.engine != "vllm":
        yield
        return
    own = model.rewards
    assert isinstance(own, CompletionRewards)
    if (reason := why_not_vllm(own)) is not None:
        raise ConfigurationError(f"scoring.engine = vllm, but {reason}: set it to auto or transformers")
    sequences = compared_sequences(model)
    expected = own(*sequences)
    del own, model.rewards  # a GPU has no room for both engines
    free_memory()
    with contextlib.ExitStack() as stack:
        with _refusing(model):
            engine = VllmRewards(model.folder, scoring, model.limit, model.trust_remote_code)
            stack.enter_context(contextlib.closing(engine))
            found = engine(*sequences)
        check_equal(found, expected, scoring)
        model.rewards = engine
        log("rewards are computed by vLLM; on random texts they are those of transformers")
        yield


def why_not_vllm(rewards: CompletionRewards) -> str | None:
    """Return why vLLM would not read a model as transformers does, or None where it is to be compared."""
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    if rewards.not_shared:
        return f"the engines read a linear head `score` with one output alike, and here {rewards.not_shared}"
    if rewards.lengths != ANY_LENGTH:
        return "the model attends otherwise from some length on, where the engines cannot be compared"
    return None


def compared_sequences(model: RewardModel) -> Sequences:
    """Return random prompts and completions: one prompt with several, the ends of a turn and the padding within."""
    tokenizer, random = model.tokenizer, np.random.default_rng(0)
    longest = min(model.limit, LONGEST)
    prompt = min(PROMPT, longest // 2)

    def ids(number: int) -> list[int]:
        found: list[int] = random.integers(0, model.vocabulary, number).tolist()
        return found

    special = [tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id]
    ends = [token for token in special if token is not None]
    texts = [ids(1), [*ids(3), *ends], [*ids(3), *ends, *ids(2)], ids(longest)]
    return Sequences([ids(prompt), ids(1)], [own[: longest - prompt] for own in [*texts, *texts]], [0] * 4 + [1] * 4)


def check_equal(found: np.ndarray, expected: np.ndarray, scoring: ScoringConfig) -> None:
    """Refuse an engine whose rewards are not those of transformers.

    Raises:
        ConfigurationError: Says how far apart they are.
    """
    bound = EQUAL if scoring.dtype == "float32" else ROUNDED
    apart, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if not apart <= bound * largest:
        raise ConfigurationError(
            f"scoring.engine = vllm, but its rewards of random texts are up to {apart:.2g} from those of transformers, "
            f"which go up to {largest:.2g}: set it to auto or transformers"
        )


@contextlib.contextmanager
def _refusing(model: RewardModel) -> Iterator[None]:
    """Name the model that vLLM does not start with, or fails on at once, whatever it raises."""
    try:
        yield
    except DOES_NOT_RUN as error:
        said = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"scoring.engine = vllm, but vLLM does not run {model.folder} ({type(error).__name__}: {said}): set it to "
            "auto or transformers"
        ) from error
