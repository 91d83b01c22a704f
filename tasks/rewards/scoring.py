"""Rewards of completions: looked up in the table, the missing ones computed by what makes them."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.rewards import RewardSource
from tasks.config.settings import ScoringConfig
from tasks.data.prompt_table import PromptTable
from tasks.judges.judge import Judge
from tasks.judges.questions import Judged
from tasks.lm.memory import frees_memory
from tasks.models.loading import model_folder, trusts_remote_code
from tasks.models.updates import warn_of_loss
from tasks.pipeline.pace import Mean, Tell
from tasks.pipeline.progress import Progress
from tasks.rewards.called import FunctionReward
from tasks.rewards.functions import Answer
from tasks.rewards.reward_model import RewardModel
from tasks.rewards.table import find_rewards, merge_rewards, rewards_part, rewards_table
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.slices import Slice, read_ahead

Score = Callable[[Sequence[Answer], Tell], np.ndarray]
"""Returns the rewards of completions, (completions,); NaN where one has none."""


@contextlib.contextmanager
def score_by(store: Store, reward: Artifact, scoring: ScoringConfig, expected: int) -> Iterator[Score]:
    """Give what computes a reward while the block runs: a reward model, loaded on its engine, a function or a judge.

    Args:
        store: Keeps what a judge answers.
        reward: The maker.
        scoring: How a reward model computes.
        expected: How many completions it will be asked about.

    Raises:
        ConfigurationError: A function is missing here, or another one than where the run was started; or the engine
            cannot run the reward model.
    """
    if reward.kind == "function":
        yield FunctionReward(reward)
        return
    if reward.kind == "judge":
        config = RewardSource.model_validate(reward.stats["source"]).judge
        assert config is not None
        yield functools.partial(_score_by_judge, Judge(config, store, expected))
        return
    from tasks.rewards.engines import on_engine

    warn_of_loss(reward, scoring.dtype, "scoring.dtype")
    model = RewardModel(model_folder(reward), scoring, trusts_remote_code(reward))
    with on_engine(model, scoring):
        yield functools.partial(_score_by_model, model)


def _score_by_judge(judge: Judge, answers: Sequence[Answer], tell: Tell) -> np.ndarray:
    asked = [Judged(each.messages, each.completion, each.reference_completion) for each in answers]
    return judge.rewards(asked, tell)


def _score_by_model(model: RewardModel, answers: Sequence[Answer], tell: Tell) -> np.ndarray:
    prompts, completions = [each.messages for each in answers], [each.completion for each in answers]
    rewards = model.score_what_fits(prompts, completions, tell)
    check_finite(answers, rewards.filled(0.0))
    filled: np.ndarray = rewards.filled(np.nan)
    return filled


def check_finite(answers: Sequence[Answer], rewards: np.ndarray) -> None:
    """Refuse rewards that are no numbers.

    Raises:
        ConfigurationError: Names the completions.
    """
    bad = np.flatnonzero(~np.isfinite(rewards))
    if bad.size:
        raise ConfigurationError(
            f"{bad.size} rewards are NaN or infinite, first {', '.join(answers[i].id for i in bad[:5].tolist())}: the "
            "reward model is broken, name another"
        )


@frees_memory
def score_slices(
    store: Store, reward: Artifact, completions: list[Slice], prompts: Artifact, scoring: ScoringConfig
) -> tuple[list[Slice], int]:
    """Return slices with the rewards of completions, and how many completions were scored for them.

    Args:
        store: Holds the completions, and the table of the rewards.
        reward: A reward model, a function or a judge.
        completions: What is scored.
        prompts: Theirs.
        scoring: How a reward model computes.

    Raises:
        ConfigurationError: The reward is broken; what was scored before is kept.
    """
    table = rewards_table(store, reward, scoring)
    found = merge_rewards(table, find_rewards(table, completions))
    slices, todo = ([slice_ for own in found for slice_ in getattr(own, side)] for side in ("rewards", "unscored"))
    scored = _score_missing(table, reward, todo, prompts, scoring) if todo else []
    return [*slices, *scored], sum(slice_.part.rows for slice_ in scored)


def _score_missing(
    table: GrowingTable, reward: Artifact, todo: list[Slice], prompts: Artifact, scoring: ScoringConfig
) -> list[Slice]:
    """Score slices of completions, and return those of their rewards: each is in the table as soon as it is done."""
    ids = {id_ for rows in read_ahead(todo, ["prompt_id"]) for id_ in rows["prompt_id"].unique().to_pylist()}
    asked, scored = PromptTable(prompts, only=ids), []
    expected = sum(slice_.num_rows() for slice_ in todo)
    with score_by(table.store, reward, scoring, expected) as score:
        progress, mean = Progress("scoring completions", expected), Mean("reward")
        for slice_, rows in zip(todo, read_ahead(todo), strict=True):
            rewards = score(answers_of(rows, asked), lambda values: progress.advance(len(values)))
            given = rows.select(["prompt_id", "completion_id"])
            given = given.append_column("reward", pa.array(rewards.astype(np.float32)))
            scored.append(Slice(table.append(rewards_part(slice_, rows), given)))
            mean.add(rewards)
            progress.move_to(mean.number, mean.text())
        progress.close()
    return scored


def answers_of(rows: pa.Table, prompts: PromptTable) -> list[Answer]:
    """Return completions, each with what is known of its prompt."""
    ids, numbers = rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist()
    return [
        Answer(prompts[id_], text, prompts.metadata(id_), prompts.reference(id_), f"{id_[:12]}/{number}")
        for id_, number, text in zip(ids, numbers, rows["completion"].to_pylist(), strict=True)
    ]
