"""Rewards of completions: looked up in the table, the missing ones computed by what makes them."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.errors import ConfigurationError
from tasks.config.rewards import CALLED, RewardSource
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
from tasks.rewards.table import find_rewards, merge_rewards, rewards_part, rewards_table, rows_name
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
        ConfigurationError: The reward is broken, or a function or a judge gives too many completions none; what was
            scored is kept.
    """
    table = rewards_table(store, reward, scoring)
    found = merge_rewards(table, find_rewards(table, completions))
    slices, todo = ([slice_ for own in found for slice_ in getattr(own, side)] for side in ("rewards", "unscored"))
    scored, failed = _score_missing(table, reward, todo, prompts, scoring) if todo else ([], {})
    if reward.kind in CALLED:
        check_failed(reward, chain(read_ahead([*slices, *scored]), failed.values()))
    scored += [Slice(table.append(name, rows)) for name, rows in failed.items()]
    return [*slices, *scored], sum(slice_.part.rows for slice_ in scored)


def _score_missing(
    table: GrowingTable, reward: Artifact, todo: list[Slice], prompts: Artifact, scoring: ScoringConfig
) -> tuple[list[Slice], dict[str, pa.Table]]:
    """Score slices of completions, and return those of their rewards: each is in the table as soon as it is done.

    The rows on which a function or a judge has failed come beside them, by the name of their part: they are not in the
    table yet, so that they are tried again where they are too many.
    """
    ids = {id_ for rows in read_ahead(todo, ["prompt_id"]) for id_ in rows["prompt_id"].unique().to_pylist()}
    asked, scored, failed = PromptTable(prompts, only=ids), list[Slice](), dict[str, pa.Table]()
    expected = sum(slice_.num_rows() for slice_ in todo)
    with score_by(table.store, reward, scoring, expected) as score:
        progress, mean = Progress("scoring completions", expected), Mean("reward")
        for slice_, rows in zip(todo, read_ahead(todo), strict=True):
            rewards = score(answers_of(rows, asked), lambda values: progress.advance(len(values)))
            given = rows.select(["prompt_id", "completion_id"])
            given = given.append_column("reward", pa.array(rewards.astype(np.float32)))
            if reward.kind in CALLED and np.isnan(rewards).any():
                none, given = given.filter(np.isnan(rewards)), given.filter(~np.isnan(rewards))
                failed[rows_name(slice_, none)] = none
                name = rows_name(slice_, given)
            else:
                name = rewards_part(slice_, rows)
            if given.num_rows:
                scored.append(Slice(table.append(name, given)))
            mean.add(rewards)
            progress.move_to(mean.number, mean.text())
        progress.close()
    return scored, failed


def check_failed(reward: Artifact, tables: Iterable[pa.Table]) -> None:
    """Refuse a function or a judge that gives too many completions no reward.

    Raises:
        ConfigurationError: Names the reward, and the first of these completions.
    """
    source = RewardSource.model_validate(reward.stats["source"])
    field, most = "max_failed", source.max_failed
    if source.judge is not None:
        field, most = "judge.max_unreadable", source.judge.max_unreadable
    failed, completions = list[dict[str, Any]](), 0
    for table in tables:
        failed += table.filter(pc.is_nan(table["reward"])).to_pylist()
        completions += table.num_rows
    if len(failed) > most * completions:
        first = ", ".join(f"{row['prompt_id'][:12]}/{row['completion_id']}" for row in failed[:3])
        raise ConfigurationError(
            f"rewards.{reward.stats['name']} gives {len(failed)} of {completions} completions no reward, first "
            f"{first}, and its {field} is {most:g}: mend it for the completions that the warnings name, or allow more. "
            "Their rewards alone are asked for again"
        )


def answers_of(rows: pa.Table, prompts: PromptTable) -> list[Answer]:
    """Return completions, each with what is known of its prompt."""
    ids, numbers = rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist()
    return [
        Answer(prompts[id_], text, prompts.metadata(id_), prompts.reference(id_), f"{id_[:12]}/{number}")
        for id_, number, text in zip(ids, numbers, rows["completion"].to_pylist(), strict=True)
    ]
