"""A policy, a reward model and a store for tables that grow."""

import pytest

from tasks.examples.world import write_base_model
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("policy")
    write_base_model(folder, seed=0)
    return Artifact(kind="model", uri=str(folder), digest="f" * 64)


@pytest.fixture(scope="module")
def reward_model(policy, tmp_path_factory) -> Artifact:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reward_model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(policy.uri, num_labels=1)
        torch.nn.init.normal_(model.score.weight, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy.uri).save_pretrained(folder)
    return Artifact(kind="model", uri=str(folder), digest="e" * 64)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))
