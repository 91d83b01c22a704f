"""What a GPU computes without any training, and so without TRL: rewards and completions."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_chain import random_llama, random_texts
from transformers import LlamaForSequenceClassification

from tasks.config.settings import Decoding
from tasks.examples.world import write_base_model
from tasks.models.loading import device
from tasks.rewards.model import CompletionRewards
from tasks.sampling.transformers_engine import TransformersEngine

pytestmark = pytest.mark.gpu

TEXTS = random_texts(2, 4, 60)


def test_rewards_are_those_of_the_cpu() -> None:
    def model() -> Any:
        made = random_llama(LlamaForSequenceClassification, layers=2, num_labels=1)
        torch.nn.init.normal_(made.score.weight, std=512**-0.5, generator=torch.Generator().manual_seed(0))
        return made

    expected = CompletionRewards(model())(*TEXTS)
    np.testing.assert_allclose(CompletionRewards(model().to(device()))(*TEXTS), expected, atol=1e-3)
    half = CompletionRewards(model().bfloat16().to(device()))(*TEXTS)
    assert np.abs(half - expected).max() < 0.2 * expected.std()


def test_a_completion_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    """The generators of the seeds are on the GPU; the second of four is the first of those from its seed on."""
    write_base_model(tmp_path, seed=0)
    engine = TransformersEngine(tmp_path, Decoding(k=4, max_new_tokens=12), False)
    assert engine.model.device.type == torch.device(device()).type
    prompt = [random.Random(0).randrange(6, 200) for _ in range(8)]
    for number, (seed, count) in enumerate([(5, 4), (6, 1), (5, 4)]):
        engine.add(number, prompt, seed, count)
    four, one, again = (engine.step()[0][1] for _ in range(3))
    assert len({tuple(sample.token_ids) for sample in four}) == 4
    assert one[0].token_ids == four[1].token_ids
    assert again == four
    engine.close()
