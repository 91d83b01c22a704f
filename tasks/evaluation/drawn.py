"""What is compared: completions of a policy on held-out prompts, with every reward that they were given."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tasks.config.evaluation import EvaluationConfig
from tasks.config.rewards import GOLD, SECTION
from tasks.config.sections import Section
from tasks.config.settings import Decoding, ScoringConfig
from tasks.data.prompt_table import PromptTable
from tasks.pipeline.pace import Mean
from tasks.pipeline.progress import Progress
from tasks.rewards.functions import GoldReward, gold_rewards
from tasks.rewards.scoring import answers_of, score_slices
from tasks.sampling.completions import sample_slices
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, read_sorted

IDS = ["prompt_id", "completion_id"]


class EvaluationSettings(Section):
    """Everything that decides an evaluation, the models and prompts apart."""

    reference: str
    """Name of the policy that the others are compared with."""
    decoding: Decoding
    scoring: ScoringConfig
    evaluation: EvaluationConfig
    gold: GoldReward
    optimised: tuple[str, ...] = (SECTION,)
    """The reward that pairs are selected by, and where it is made of several, those."""


class Drawn(NamedTuple):
    """A policy's completions of the held-out prompts: one entry each, ordered by prompt_id and completion_id."""

    rows: pa.Table
    rewards: dict[str, np.ndarray]
    """Name of a reward -> (completions,) float64; NaN: left out."""
    parts: dict[str, str]
    """Folder -> digest of the parts that they are in."""

    @property
    def truncated(self) -> np.ndarray:
        """Return which completions were cut at max_new_tokens."""
        return np.array([reason == "length" for reason in self.rows["finish_reason"].to_pylist()], bool)

    def finished(self) -> dict[str, np.ndarray]:
        """Return the rewards, NaN for truncated completions."""
        return {name: np.where(self.truncated, np.nan, values) for name, values in self.rewards.items()}


def draw(
    store: Store,
    policy: Artifact,
    reward_models: Mapping[str, Artifact],
    prompts: Artifact,
    settings: EvaluationSettings,
) -> Drawn:
    """Sample a policy on the prompts and score what it says with every reward, reusing what the store has.

    Raises:
        DamagedArtifactError: The store holds rewards of other completions.
    """
    slices, _ = sample_slices(store, policy, prompts, settings.decoding)
    rows, rewards, used = read_sorted(slices), dict[str, np.ndarray](), list[Slice](slices)
    for name, model in reward_models.items():
        scored, _ = score_slices(store, model, slices, prompts, settings.scoring)
        used += scored
        found = read_sorted(scored)
        if rows.select(IDS) != found.select(IDS):
            raise DamagedArtifactError(
                "the rewards do not belong to these completions: delete the store's tables/rewards and run again"
            )
        rewards[name] = found["reward"].to_numpy().astype(np.float64)
    if settings.gold.function is not None:
        given = answers_of(rows, PromptTable(prompts))
        progress = Progress("gold rewards", len(given))
        rewards[GOLD] = gold_rewards(settings.gold, given, progress.counting(Mean("reward")))
        progress.close()
    return Drawn(rows, rewards, {store.folder_of(slice_.part): slice_.part.digest for slice_ in used})


def samples_table(drawn: Mapping[str, Drawn]) -> pa.Table:
    """Return a row for each policy, completion and reward, for people to read; no reward: null."""
    tables = []
    for policy, own in drawn.items():
        for name, values in own.rewards.items():
            columns = {column: own.rows[column] for column in (*IDS, "completion")}
            columns |= {"policy": pa.array([policy] * values.size), "reward_name": pa.array([name] * values.size)}
            columns["reward"] = pa.array(values, mask=np.isnan(values))
            tables.append(pa.table(columns).select(SCHEMAS["evaluation"].names).cast(SCHEMAS["evaluation"]))
    return pa.concat_tables(tables)
