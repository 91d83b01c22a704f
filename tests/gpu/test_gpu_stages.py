"""Every stage on a GPU, in bfloat16, one after another: what it makes is sound, and it gives the memory back."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from gpu_chain import Inputs
from pair_tables import draft

from tasks.config.evaluation import EvaluationConfig
from tasks.config.rloo import RlooConfig, Rollouts
from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig, Lora
from tasks.rewards.functions import GoldReward
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes, read_manifest
from tasks.store.slices import read_ahead, read_slices

trl = pytest.importorskip("trl", reason="trl is not installed: no training runs")

from tasks.dpo import train_dpo  # noqa: E402 - and what imports TRL
from tasks.evaluate import evaluate_policy, evaluation_settings  # noqa: E402
from tasks.pairs import build_pairs  # noqa: E402
from tasks.reward_model import train_reward_model  # noqa: E402
from tasks.rloo import train_rloo  # noqa: E402
from tasks.sample import sample_completions  # noqa: E402
from tasks.score import score_completions  # noqa: E402
from tasks.sft import train_sft  # noqa: E402

pytestmark = pytest.mark.gpu

TRAINING: dict[str, Any] = {"dtype": "bfloat16", "scheduler": "constant", "warmup_ratio": 0.0, "logging_steps": 1}
SFT = SftConfig(
    base_model=ModelSource(path="given"),
    max_steps=15,
    batch_size=16,
    learning_rate=3e-3,
    **TRAINING,
)
REWARD_MODEL = RewardModelConfig(max_steps=6, batch_size=8, learning_rate=1e-3, evaluation_fraction=0.2, **TRAINING)
SAMPLING = SamplingConfig(k=8, max_new_tokens=24, engine="transformers", dtype="bfloat16")
SCORING = ScoringConfig(dtype="bfloat16")
PAIRS = PairsConfig(strategy="best_vs_worst", truncated="keep")
DPO = DpoConfig(max_steps=4, batch_size=4, learning_rate=1e-3, **TRAINING)
EVALUATION = EvaluationConfig(k=2, kl_completions=2, bootstrap_samples=100)
NUMBERS = count()
SLACK = 64 << 20
"""Bytes that a process may keep on a GPU once it has computed there: cuBLAS's workspaces."""


@contextmanager
def gives_memory_back() -> Iterator[None]:
    """Check that as much memory is taken on the GPU afterwards as before, by this process and by all."""
    if not torch.cuda.is_available():
        yield
        return
    torch.zeros(1, device="cuda")  # this process's own context is none of the stage's
    gc.collect()
    torch.cuda.empty_cache()
    (free, _), held = torch.cuda.mem_get_info(), torch.cuda.memory_allocated()
    yield
    assert torch.cuda.memory_allocated() - held < SLACK
    assert free - torch.cuda.mem_get_info()[0] < 4 * SLACK  # and kernels, which are loaded as they are used


def compute(store: Store, stage: Any, *arguments: Any) -> Artifact:
    """Compute a stage's output as a run does, Prefect apart; a GPU's memory is as before."""
    out = Draft(store, Provenance(stage=stage.name, version=1, key=f"key{next(NUMBERS)}"))
    with gives_memory_back(), out.measured():
        made: Artifact = stage.body(out, *arguments)
    return made


@pytest.fixture(scope="module")
def sft(home: Store, inputs: Inputs) -> Artifact:
    return compute(home, train_sft, inputs.base_model, inputs.demonstrations, SFT)


@pytest.fixture(scope="module")
def reward_model(home: Store, inputs: Inputs, sft: Artifact) -> Artifact:
    return compute(home, train_reward_model, sft, inputs.preferences, REWARD_MODEL)


@pytest.fixture(scope="module")
def completions(home: Store, inputs: Inputs, sft: Artifact) -> Artifact:
    return compute(home, sample_completions, sft, inputs.prompts, SAMPLING)


@pytest.fixture(scope="module")
def rewards(home: Store, inputs: Inputs, reward_model: Artifact, completions: Artifact) -> Artifact:
    return compute(home, score_completions, reward_model, completions, inputs.prompts, SCORING)


@pytest.fixture(scope="module")
def aligned(home: Store, inputs: Inputs, sft: Artifact, completions: Artifact, rewards: Artifact) -> Artifact:
    pairs = build_pairs.body(draft(home, "pairs"), rewards, completions, PAIRS)
    return compute(home, train_dpo, sft, sft, pairs, completions, inputs.prompts, DPO)


def logged(model: Artifact, metric: str) -> list[float]:
    log = pq.read_table(pa.BufferReader(read_bytes(model, "training_log.parquet"))).to_pylist()
    return [row["value"] for row in log if row["metric"] == metric]


def assert_computed_on_the_card(model: Artifact) -> None:
    """Check that the manifest says where a child has trained."""
    if torch.cuda.is_available():
        cost = read_manifest(model.uri).cost
        assert cost["device"] == torch.cuda.get_device_name()
        assert cost["peak_gpu_memory"] > 1 << 20


def test_sft_learns(sft: Artifact) -> None:
    losses = logged(sft, "loss")
    assert len(losses) == 15
    assert losses[-1] < 0.9 * losses[0]
    assert_computed_on_the_card(sft)


def test_a_reward_model_learns(reward_model: Artifact) -> None:
    losses = logged(reward_model, "loss")
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) + 0.2
    assert reward_model.stats["held_out_pairs"] > 0
    assert_computed_on_the_card(reward_model)


def test_completions_are_drawn(completions: Artifact, home: Store) -> None:
    rows = [row for table in read_ahead(read_slices(home, completions)) for row in table.to_pylist()]
    assert len(rows) == 8 * SAMPLING.k
    assert len({tuple(row["token_ids"]) for row in rows}) > len(rows) / 2


def test_rewards_tell_completions_apart(rewards: Artifact, home: Store) -> None:
    found = np.concatenate([table["reward"].to_numpy() for table in read_ahead(read_slices(home, rewards))])
    assert len(found) == 8 * SAMPLING.k
    assert np.isfinite(found).all()
    assert found.std() > 0


def test_dpo_moves_the_margin(aligned: Artifact) -> None:
    assert logged(aligned, "loss")[0] == pytest.approx(np.log(2), abs=0.02)  # LoRA begins at the reference
    assert logged(aligned, "rewards/margins")[-1] > 0
    assert_computed_on_the_card(aligned)


def test_dpo_on_all_weights(
    home: Store, inputs: Inputs, sft: Artifact, completions: Artifact, rewards: Artifact
) -> None:
    pairs = build_pairs.body(draft(home, "pairs"), rewards, completions, PAIRS)
    config = DPO.model_copy(update={"lora": None, "snapshots": 1, "evaluation_fraction": 0.2, "learning_rate": 1e-4})
    model = compute(home, train_dpo, sft, sft, pairs, completions, inputs.prompts, config)
    assert logged(model, "loss")[0] == pytest.approx(np.log(2), abs=0.02)
    assert len(model.stats["snapshots"]) == 1


def test_evaluation(home: Store, inputs: Inputs, sft: Artifact, aligned: Artifact, reward_model: Artifact) -> None:
    settings = evaluation_settings(SAMPLING, SCORING, EVALUATION, GoldReward())
    policies = {"sft": sft, "aligned": aligned}
    made = compute(home, evaluate_policy, policies, {"proxy": reward_model}, inputs.prompts, settings)
    figures = made.stats["policies"]["aligned"]
    assert 0 <= figures["win_rates"]["proxy"]["win_rate"] <= 1
    assert figures["divergence"]["kl_sequence"] > 0
    assert np.isfinite(figures["reference_nll"])


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["all weights", "lora"])
def test_rloo(
    home: Store, inputs: Inputs, sft: Artifact, reward_model: Artifact, lora: Lora | None, needs: Callable
) -> None:
    if lora is not None:
        needs("peft")
    config = RlooConfig(k=4, batch_size=8, micro_batch_size=8, max_steps=2, lora=lora, **TRAINING)
    rollouts = Rollouts(max_new_tokens=16, truncated="keep", scoring=SCORING)
    model = compute(home, train_rloo, sft, reward_model, inputs.prompts, config, rollouts)
    assert model.stats["drawn"]["completions"] == 16
    assert np.isfinite(logged(model, "reward")).all()


def test_vllm_starts_after_a_stage_in_this_process_and_leaves_no_memory(
    home: Store, inputs: Inputs, sft: Artifact, rewards: Artifact, needs: Callable
) -> None:
    """It asks for 90% of the GPU's memory, which what was scored here before must not hold."""
    needs("vllm")
    sampling = SAMPLING.model_copy(update={"engine": "vllm", "seed": 1})
    made = compute(home, sample_completions, sft, inputs.prompts, sampling)
    assert made.stats["completions"] == 8 * SAMPLING.k
