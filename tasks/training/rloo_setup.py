"""What an RLOO training is set up with: its job, the order of its prompts, and TRL's arguments."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.rloo import RlooConfig, Rollouts
from tasks.pipeline.jobs import Job

if TYPE_CHECKING:
    from trl import RLOOConfig as RlooArguments


class RlooJob(RlooConfig):
    """The settings of a training, and what else the process that trains needs."""

    rollouts: Rollouts
    reward_model: str
    """Its folder on this machine."""
    trust_reward_model: bool
    """Run code that comes with it."""


def steps_of(rloo: RlooConfig, prompts: int) -> int:
    """Return the optimizer steps of a training over so many prompts; the last one of a pass takes in the next pass."""
    return rloo.max_steps or math.ceil(rloo.epochs * prompts / rloo.prompts_per_step)


def check_enough(rloo: RlooConfig, prompts: int) -> None:
    """Refuse fewer prompts than an optimizer step takes.

    Raises:
        ConfigurationError: A step would draw for one of them twice.
    """
    if prompts < rloo.prompts_per_step:
        raise ConfigurationError(
            f"rloo.batch_size = {rloo.batch_size} with rloo.k = {rloo.k} takes {rloo.prompts_per_step} prompts an "
            f"optimizer step, and there are {prompts}: lower rloo.batch_size, or raise rloo.max_length or max_prompts"
        )


def prompt_order(prompts: int, wanted: int, seed: int) -> np.ndarray:
    """Return the places of the prompts of a whole training, (wanted,): pass after pass, each in an order of its own.

    Laid out at once, so that a training that goes on takes the prompts that it would have taken.

    Args:
        prompts: How many there are.
        wanted: How many the training takes.
        seed: Of the shuffle.
    """
    passes = math.ceil(wanted / prompts)
    orders = [np.random.default_rng([seed, number]).permutation(prompts) for number in range(passes)]
    return np.concatenate(orders)[:wanted]


def rloo_arguments(job: Job, config: RlooJob, steps: int, end_ids: list[int]) -> "RlooArguments":
    """Return the configuration of TRL's trainer: one pass over prompts that are in order, one update of each draw.

    Args:
        job: The training.
        config: Its settings.
        steps: Optimizer steps.
        end_ids: Tokens that end a completion.
    """
    from trl import RLOOConfig as RlooArguments

    from tasks.training.trainer import fixed_batches, trainer_arguments

    given = trainer_arguments(job, config)
    del given["max_length"]  # of prompts with completions that are there
    rollouts = config.rollouts
    arguments: dict[str, Any] = (
        given
        | fixed_batches(config)
        | {
            "max_steps": steps,
            "num_generations": config.k,
            "max_completion_length": rollouts.max_new_tokens,
            "temperature": rollouts.temperature,
            "top_p": rollouts.top_p,
            "top_k": rollouts.top_k,
            "generation_kwargs": {"eos_token_id": end_ids},
            "beta": config.beta,
            "num_iterations": 1,  # each draw is of the policy that it trains: the ratio of the two is 1
            "disable_dropout": True,
            "shuffle_dataset": False,
            "router_aux_loss_coef": None,
            "trust_remote_code": job.trust_remote_code,
        }
    )
    return RlooArguments(**arguments)
