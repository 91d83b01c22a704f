"""RLOO: the order of its prompts, rewards as scoring gives them, what a stopped training counts, what is refused."""

import numpy as np
import pytest
import torch
from pair_tables import commit, draft
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from tasks.config.errors import ConfigurationError
from tasks.config.rloo import RlooConfig, Rollouts
from tasks.config.settings import SamplingConfig, ScoringConfig
from tasks.examples.world import write_base_model
from tasks.lm.tokens import load_tokenizer
from tasks.models.form import stop_ids
from tasks.models.loading import model_folder
from tasks.rloo import check_prompts_fit, prompts_that_fit, rloo_stats, train_rloo
from tasks.sample import sample_completions
from tasks.score import score_completions
from tasks.store.artifacts import Artifact, files_digest
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.store.slices import read_ahead, read_slices
from tasks.training.rloo_setup import RlooJob, prompt_order, steps_of
from tasks.training.snapshots import snapshots

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 4
SETTINGS = {"k": 2, "batch_size": 4, "micro_batch_size": 2, "max_steps": STEPS, "learning_rate": 1e-2, "lora": None}
SETTINGS |= {"logging_steps": 1, "save_steps": 100, "scheduler": "constant", "warmup_ratio": 0.0}
ROLLOUTS = Rollouts(max_new_tokens=6, truncated="keep")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Store:
    return Store(str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def prompts(home) -> Artifact:
    rows = [(f"p{number}", f"Where does the {name} live?") for number, name in enumerate(["seal", "owl", "cat"])]
    messages = [{"prompt_id": id_, "messages": [{"role": "user", "content": text}]} for id_, text in rows]
    return commit(home, "prompts", [row | {"source": "test"} for row in messages])


@pytest.fixture(scope="module")
def reward_model(home, tmp_path_factory) -> Artifact:
    """Return the world's model with a head of random numbers."""
    folder = tmp_path_factory.mktemp("reward_model")
    write_base_model(folder, seed=0)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    files = {path.name: path for path in folder.iterdir()}
    return draft(home, "reward_model").commit("model", files, files_digest(files))


def train(store: Store, start: Artifact, reward_model: Artifact, prompts: Artifact, **changes) -> Artifact:
    rollouts = changes.pop("rollouts", ROLLOUTS)
    config = RlooConfig(**SETTINGS | changes)
    return train_rloo.body(draft(store, "rloo"), start, reward_model, prompts, config, rollouts)


def test_every_pass_has_each_prompt_once_and_a_shorter_training_begins_like_a_longer_one():
    order = prompt_order(5, 12, seed=3)
    assert [sorted(order[:5]), sorted(order[5:10])] == [list(range(5))] * 2
    assert len({*order[10:]}) == 2
    assert order[:5].tolist() != order[5:10].tolist()
    assert prompt_order(5, 7, seed=3).tolist() == order[:7].tolist()
    assert prompt_order(5, 12, seed=4).tolist() != order.tolist()


def test_steps_by_hand():
    config = RlooConfig(k=4, batch_size=16, epochs=2.5, micro_batch_size=16)  # 4 prompts a step
    assert steps_of(config, 10) == 7, "25 prompts"
    assert steps_of(config.model_copy(update={"max_steps": 3}), 10) == 3


def test_a_completion_has_the_reward_that_scoring_gives_it(home, start, reward_model, prompts):
    from tasks.training.rloo_trainer import RolloutRewards

    sampling = SamplingConfig(k=6, max_new_tokens=12, engine="transformers")
    drawn = sample_completions.body(draft(home, "drawn"), start, prompts, sampling)
    scored = score_completions.body(draft(home, "scored"), reward_model, drawn, prompts, ScoringConfig())
    completions, expected = (
        [row for table in read_ahead(read_slices(home, own)) for row in table.to_pylist()] for own in (drawn, scored)
    )
    messages = dict(zip(*(read_table(prompts)[name].to_pylist() for name in ("prompt_id", "messages")), strict=True))
    folder, rest = model_folder(start), {"reward_model": str(model_folder(reward_model)), "trust_reward_model": False}
    tokenizer = load_tokenizer(folder)
    for rule in ("keep", "drop"):
        rollouts = Rollouts(max_new_tokens=12, truncated=rule)
        rewards = RolloutRewards(RlooJob(rollouts=rollouts, **rest), tokenizer, sorted(stop_ids(folder, tokenizer)))
        ids = [row["token_ids"] for row in completions]
        found = rewards([messages[row["prompt_id"]] for row in completions], ids)
        by_id = {(row["prompt_id"], row["completion_id"]): row["reward"] for row in expected}
        for own, row in zip(found, completions, strict=True):
            assert own.truncated == (row["finish_reason"] == "length")
            if rule == "drop" and own.truncated:
                assert own.reward is None
            else:
                assert own.reward == pytest.approx(by_id[row["prompt_id"], row["completion_id"]], abs=1e-5)
    assert np.std(list(by_id.values())) > 0.1, "rewards that differ"


def test_what_is_drawn_is_counted_also_by_a_training_that_goes_on(
    tmp_path, start, reward_model, prompts, preempted, another_worker
):
    whole = train(Store(str(tmp_path / "whole")), start, reward_model, prompts)
    drawn = whole.stats["drawn"]
    assert drawn["completions"] == STEPS * 4
    assert drawn["without_reward"] == 0
    assert STEPS * 4 <= drawn["tokens"] <= STEPS * 4 * 6
    assert 0 < whole.stats["completions"] <= STEPS * 4
    store = Store(str(tmp_path / "stopped"))
    preempted("rloo", store, 2, lambda stage, store, start: train(store, start, reward_model, prompts))
    assert store.list("checkpoints/rloo/rloo") == ["step-2"]
    went_on = train(store, start, reward_model, prompts)
    assert went_on.stats["drawn"] == drawn
    assert went_on.digest == whole.digest, "it draws what it would have drawn"
    assert whole.digest != start.digest


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["whole", "lora"])
def test_models_are_kept_along_the_training(tmp_path, start, reward_model, prompts, lora):
    model = train(Store(str(tmp_path)), start, reward_model, prompts, lora=lora, snapshots=1)
    found = snapshots(model, start)
    assert list(found) == ["step-2"]
    assert found["step-2"].kind == ("model" if lora is None else "adapter")


def test_how_many_are_forwarded_at_once_changes_nothing(tmp_path, start, reward_model, prompts):
    plain = {"extra": {"optim": "sgd"}}  # AdamW makes steps of what rounding leaves of a gradient near zero
    one, other = (
        train(Store(str(tmp_path / str(size))), start, reward_model, prompts, micro_batch_size=size, **plain)
        for size in (1, 4)
    )
    assert one.stats["drawn"] == other.stats["drawn"]
    before, ours, theirs = (load_file(model_folder(model) / "model.safetensors") for model in (start, one, other))
    assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) < 1e-5
    assert max(np.abs(ours[name] - before[name]).max() for name in ours) > 3e-4


def test_where_all_is_truncated_nothing_is_learned_and_said(tmp_path, start, reward_model, prompts):
    rollouts = Rollouts(max_new_tokens=1, truncated="drop")
    with pytest.raises(ConfigurationError, match=r"none of 4 completions could be trained on \(4 were truncated\)"):
        train(Store(str(tmp_path)), start, reward_model, prompts, max_steps=1, rollouts=rollouts)


def test_what_was_trained_on_counts_once():
    found = {"completions": 8, "tokens": 40, "truncated": 1, "without_reward": 1, "different": ["a", "b"]}
    stats = rloo_stats(found, {"reward": 0.5, "loss": 1.0})
    assert stats == {
        "completions": 2,
        "drawn": {"completions": 8, "tokens": 40, "truncated": 1, "without_reward": 1},
        "reward": 0.5,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 3, "batch_size": 64}, "rloo.batch_size = 64 must be a multiple of rloo.k = 3"),
        ({"k": 1}, "greater than or equal to 2"),
        ({"lora": {"dropout": 0.1}}, "rloo.lora.dropout = 0.1 must be 0"),
        ({"extra": {"num_generations": 8}}, "rloo.extra.num_generations cannot be set: set rloo.k"),
        ({"extra": {"max_completion_length": 8}}, "set sampling.max_new_tokens"),
        ({"beta": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RlooConfig(**settings)


def test_prompts_without_room_for_a_completion_are_left_out_and_too_few_are_refused(start, prompts):
    config = RlooConfig(k=2, batch_size=2, micro_batch_size=2, max_length=32)
    assert prompts_that_fit(start, prompts, config, Rollouts(max_new_tokens=4)).num_rows == 3
    for look in (prompts_that_fit, check_prompts_fit):
        with pytest.raises(ConfigurationError, match="takes 1 prompts an optimizer step, and there are 0"):
            look(start, prompts, config, Rollouts(max_new_tokens=30))


def test_the_check_tokenizes_no_more_prompts_than_a_step_takes(start, prompts, monkeypatch):
    asked = []
    monkeypatch.setattr("tasks.rloo.encode_prompt", lambda tokenizer, messages: asked.append(messages) or [1])
    config = RlooConfig(k=2, batch_size=4, micro_batch_size=2, max_length=32)
    check_prompts_fit(start, prompts, config, Rollouts(max_new_tokens=4))
    assert len(asked) == 2 < prompts.rows
