"""The section `evaluation`: how the aligned policy is compared with the SFT policy, and by which benchmarks."""

from typing import Annotated

from pydantic import Field

from tasks.config.benchmarks import Benchmarks
from tasks.config.sections import NOT_IN_KEY, Function, Section
from tasks.config.settings import MOST_COMPLETIONS


class EvaluationConfig(Section):
    """Comparison of the aligned policy with the SFT policy on held-out prompts."""

    k: int = Field(1, ge=1, le=MOST_COMPLETIONS)
    """Completions a held-out prompt and policy, drawn with the sampling section's settings."""
    kl_completions: int = Field(1, ge=1)
    """Completions a held-out prompt that KL(pi || pi_SFT) is estimated on, drawn at temperature 1 from the whole
    vocabulary. Where the sampling section draws so, the `k` above are among them."""
    seed: int = Field(1, ge=0)
    """Seed of the drawn completions and of the bootstrap."""
    bootstrap_samples: int = Field(10_000, ge=100)
    """Resamples of the prompts behind the 95% interval."""
    gold_reward: Function | None = None
    """Known reward, where the task has one; reported beside the reward model's."""
    benchmarks: Annotated[Benchmarks | None, NOT_IN_KEY] = None
    """Benchmarks that the SFT policy and the aligned one are measured by; null: none."""
