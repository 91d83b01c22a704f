"""Each GPU stage as a flow of its own, for a deployment on a pool of GPU workers (`compute` in the configuration).

The flow computes in its own process and commits to the store; the pipeline that asked for it reads it there.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from prefect import flow
from prefect.concurrency.sync import concurrency

import tasks.dpo
import tasks.evaluate
import tasks.reward_model
import tasks.sample
import tasks.score
import tasks.sft
from tasks.config.settings import RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig
from tasks.evaluate import Method
from tasks.pipeline.dispatch import GPU_LIMIT
from tasks.pipeline.gpus import gpus_of
from tasks.pipeline.site import Site
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store

LAST_SECONDS = 4.0
"""What a run has after SIGTERM to end by itself."""


@contextmanager
def gpus(number: int) -> Iterator[None]:
    """Hold the slots of so many GPUs, all at once or none.

    A server that is gone for a while does not end the work, and the slots of a dead run come free.

    Raises:
        ConcurrencySlotAcquisitionError: The server has no such limit, or fewer slots altogether.
    """
    slots = concurrency(GPU_LIMIT, occupy=number, strict=True, lease_duration=60, raise_on_lease_renewal_failure=False)
    with slots, ended_by_sigterm():
        yield


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End the process soon after SIGTERM, even where a library swallows the exception that Prefect makes of it.

    Prefect itself would wait for 30 s. A training puts its own handler in place of this one, and takes time to save.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        last = threading.Timer(LAST_SECONDS, os._exit, [128 + number])
        last.daemon = True
        last.start()
        before(number, frame)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@flow(name="train-sft", flow_run_name="SFT on {demonstrations.rows} demonstrations")
def train_sft(store: str, base_model: Artifact, demonstrations: Artifact, sft: SftConfig) -> None:
    """Fine-tune the base model on the demonstrations."""
    with gpus(gpus_of(sft)):
        tasks.sft.train_sft(Site(Store(store)), base_model, demonstrations, sft)


@flow(name="train-reward-model", flow_run_name="reward model on {preferences.rows} pairs")
def train_reward_model(
    store: str, base_model: Artifact, preferences: Artifact, reward_model: RewardModelConfig
) -> None:
    """Train a reward model on preference pairs."""
    with gpus(gpus_of(reward_model)):
        tasks.reward_model.train_reward_model(Site(Store(store)), base_model, preferences, reward_model)


@flow(name="sample-completions", flow_run_name="sampling {prompts.rows} prompts x {sampling.k}")
def sample_completions(
    store: str, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig
) -> None:
    """Draw k completions a prompt."""
    with gpus(gpus_of(sampling)):
        tasks.sample.sample_completions(Site(Store(store)), policy, prompts, annotated, sampling)


@flow(name="score-completions", flow_run_name="scoring {completions.rows} completions")
def score_completions(
    store: str, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> None:
    """Score every completion with the reward model."""
    with gpus(gpus_of(scoring)):
        tasks.score.score_completions(Site(Store(store)), reward_model, completions, prompts, scoring)


@flow(name="train-dpo", flow_run_name="DPO on {pairs.rows} pairs")
def train_dpo(
    store: str, policy: Artifact, pairs: Artifact, completions: Artifact, prompts: Artifact, dpo: DpoConfig
) -> None:
    """Train the policy on the pairs."""
    with gpus(gpus_of(dpo)):
        tasks.dpo.train_dpo(Site(Store(store)), policy, pairs, completions, prompts, dpo)


@flow(name="evaluate-policy", flow_run_name="evaluation on {held_out.rows} prompts")
def evaluate_policy(
    store: str, aligned: Artifact, policy: Artifact, reward_model: Artifact, held_out: Artifact, how: Method
) -> None:
    """Compare the aligned policy with pi_SFT on held-out prompts."""
    with gpus(gpus_of(how.decoding)):
        tasks.evaluate.evaluate_policy(Site(Store(store)), aligned, policy, reward_model, held_out, how)
