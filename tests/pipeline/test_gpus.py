"""What stages need of their workers, asked before anything runs; and the slots that they take."""

import asyncio

import pytest
from doubles import SOURCE
from prefect import flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from pydantic import ValidationError
from runs import SUPPORT

from flows.stages import STAGES, gpus
from infra.apply import apply, job_template
from tasks.config.compute import ComputeConfig
from tasks.config.errors import ConfigurationError
from tasks.config.settings import RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig
from tasks.pipeline.checks import check_compute
from tasks.pipeline.dispatch import (
    GPU_LIMIT,
)
from tasks.pipeline.gpus import Need, gpus_needed, gpus_of, gpus_of_run


def test_a_deployment_that_is_not_there_is_refused(prefect_harness):
    with pytest.raises(ValueError, match=r"compute.train_dpo = 'train-dpo/nowhere'.* no such deployment"):
        check_compute(ComputeConfig(train_dpo="train-dpo/nowhere"), {})
    check_compute(ComputeConfig(), {})


def test_a_stage_that_needs_more_gpus_than_a_worker_has_is_refused(prefect_harness):
    with get_client(sync_client=True) as client:
        pool = WorkPoolCreate(name="pairs-of-gpus", type="process", base_job_template=job_template("process", 2))
        client.create_work_pool(pool)
    source = flow.from_source(source=str(SUPPORT), entrypoint="dispatched.py:train_sft_on_worker")
    source.deploy(name="pairs", work_pool_name="pairs-of-gpus", print_next_steps=False)
    compute = ComputeConfig(train_sft="train-sft/pairs")
    check_compute(compute, {"train_sft": Need(2, "sft.devices"), "train_dpo": Need(8, "dpo.devices")})
    message = (
        "sft.devices = 4: compute.train_sft = 'train-sft/pairs' runs on the pool pairs-of-gpus, whose workers have 2 "
        r"GPUs each, .* --gpus-per-worker 4"
    )
    with pytest.raises(ConfigurationError, match=message):
        check_compute(compute, {"train_sft": Need(4, "sft.devices")})


def test_what_stages_need():
    sft, reward_model = SftConfig(base_model="m", devices=2), RewardModelConfig(devices=4)
    extra = {"tensor_parallel_size": 2, "data_parallel_size": 3}
    sections = {
        "sft": sft,
        "reward_model": reward_model,
        "sampling": SamplingConfig(extra=extra),
        "dpo": DpoConfig(devices=8),
    }
    needs = gpus_needed(STAGES.values(), sections)
    expected = {"train_sft": 2, "train_reward_model": 4, "sample_completions": 6, "evaluate_policy": 6, "train_dpo": 8}
    assert {stage: need.gpus for stage, need in needs.items()} == expected
    assert needs["train_dpo"].setting == "dpo.devices"
    ready = {
        "sft": SftConfig(ready_model="m", devices=2),
        "reward_model": RewardModelConfig(ready_model="m", devices=4),
    }
    needs = gpus_needed(STAGES.values(), sections | ready)
    assert needs.keys() == {"sample_completions", "evaluate_policy", "train_dpo"}
    assert gpus_of_run({"prompts": SOURCE, "sampling": SamplingConfig(extra=extra)}) == 6
    assert gpus_of_run({"prompts": SOURCE}) == 1
    assert gpus_of(ScoringConfig()) == 1


def slots_taken() -> int:
    async def read() -> int:
        async with get_client() as client:
            return (await client.read_global_concurrency_limit_by_name(GPU_LIMIT)).active_slots

    return asyncio.run(read())


def test_a_stage_holds_a_slot_for_each_of_its_gpus(prefect_harness):
    asyncio.run(apply(4, gpus_per_worker=4))
    with gpus(3):
        assert slots_taken() == 3
        with gpus(1):
            assert slots_taken() == 4
    assert slots_taken() == 0
    with pytest.raises(ConcurrencySlotAcquisitionError), gpus(5):  # at once, instead of waiting for ever
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_sft": "gpu"}, "train_sft = 'gpu' must be `inline` or the name of a flow/deployment"),
        ({"train_sft": "a/b/c"}, "train_sft = 'a/b/c' must be"),
        ({"shards": 0}, "greater than or equal to 1"),
        ({"shards": 2}, "shards = 2 needs deployments in compute.sample_completions"),
    ],
)
def test_bad_places_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ComputeConfig(**settings)
