"""SFT in passes of like length against TRL's own trainer: the mean over the tokens of each step."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from little_memory import holds
from random_groups import neox, tokenizer
from reward_steps import arguments, weights
from trl import SFTConfig as SftArguments
from trl import SFTTrainer

from tasks.config.settings import SftConfig
from tasks.training.sft_trainer import Demonstrations, StepSFTTrainer
from tasks.training.step_trainer import StepCollator, shares, step_arguments

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = np.random.default_rng(0)
ROWS = [
    {"input_ids": RANDOM.integers(3, 40, prompt + own).tolist(), "completion_mask": [0] * prompt + [1] * own}
    for prompt, own in RANDOM.integers(1, 25, (22, 2)).tolist()
]


def ours(folder, **changes):
    config = SftConfig(**{"base_model": "given", "batch_size": 8, "epochs": 2, "seed": 3, **changes})
    words = tokenizer()
    collator = StepCollator(Demonstrations(Dataset.from_list(ROWS), words.pad_token_id), config)
    args = SftArguments(**arguments(folder, completion_only_loss=True, seed=3) | step_arguments(collator))
    data = shares(collator)
    return StepSFTTrainer(model=neox(), args=args, data_collator=collator, train_dataset=data, processing_class=words)


@pytest.fixture(scope="module")
def trl(tmp_path_factory):
    more = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_train_epochs": 2, "seed": 3}
    args = SftArguments(**arguments(tmp_path_factory.mktemp("trl"), completion_only_loss=True, **more))
    trainer = SFTTrainer(model=neox(), args=args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer())
    trainer.train()
    return trainer


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry and "loss" in entry]


@pytest.mark.parametrize("tokens", [8192, 100, 1], ids=["a few passes", "more", "one a pass"])
def test_after_epochs_weights_are_trls(tmp_path, trl, tokens):
    trainer = ours(tmp_path, tokens_per_batch=tokens)
    trainer.train()
    assert trainer.state.global_step == trl.state.global_step == 6
    assert float((weights(trainer.model) - weights(trl.model)).abs().max()) < 1e-6
    assert float((weights(trainer.model) - weights(neox())).abs().max()) > 1e-4
    for name in ("loss", "num_tokens"):
        assert logged(trainer, name) == pytest.approx(logged(trl, name), rel=1e-4), name


def test_the_accuracy_of_a_step_is_over_its_tokens(tmp_path):
    found = []
    for tokens in (10**6, 60):
        trainer = ours(tmp_path, tokens_per_batch=tokens, max_steps=2)
        trainer.data_collator.examples.least_fill = 0.0  # so that the first has one pass a step
        trainer.train()
        found.append(logged(trainer, "mean_token_accuracy"))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_memory_that_runs_out_changes_no_step(tmp_path, trl, capsys):
    trainer = ours(tmp_path)
    with holds(trainer.model, 60, backward=True) as fit:
        trainer.train()
    assert 0 < max(fit) <= 60
    assert "tokens a pass: going on with" in capsys.readouterr().out
    torch.testing.assert_close(weights(trainer.model), weights(trl.model), rtol=0, atol=1e-6)
    assert logged(trainer, "num_tokens") == logged(trl, "num_tokens")
