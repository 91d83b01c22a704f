"""Scoring: reads completions, writes one reward a completion, each prompt computed once."""

import json
from collections import defaultdict
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.artifacts import Artifact, Provenance
from tasks.config import ScoringConfig
from tasks.cover import select_slices, slices_of
from tasks.drafts import Draft, stage_key
from tasks.errors import ConfigurationError
from tasks.filesystem import in_parallel
from tasks.models import device, model_folder, trusts_remote_code
from tasks.plan import pending
from tasks.progress import Progress, log
from tasks.prompts import PromptTable
from tasks.records import Messages
from tasks.stage import Work, stage
from tasks.storage import AT_ONCE, Store
from tasks.tables import GrowingTable, Slice, commit_slices, completions_of, part_name, read_ahead, read_slices
from tasks.tokens import context_length, cut_at_prompts, encode_conversations, encode_prompt, load_tokenizer
from tasks.updates import warn_of_loss
from tasks.weight_files import know_architecture
from tasks.weights import load_weights

TABLE_VERSION = 4
BINS = 20
"""Of the histogram of rewards."""


class RewardModel:
    """A reward model with its own tokenizer and chat template: r(x, y)."""

    def __init__(self, folder: Path, scoring: ScoringConfig, trust_remote_code: bool = False) -> None:
        """Load a model folder onto the GPU where there is one."""
        import torch

        from tasks.rewards import Rewards

        know_architecture(folder)
        self.tokenizer = load_tokenizer(folder, trust_remote_code)
        model = load_weights(folder, "reward_model", getattr(torch, scoring.dtype), trust_remote_code)
        if getattr(model.config.get_text_config(), "pad_token_id", None) is None:
            model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.rewards, self.limit = Rewards(model.to(device()), scoring.tokens_per_batch), context_length(folder)

    def score(self, prompts: list[Messages], completions: list[str]) -> np.ndarray:
        """Return the reward of each prompt and completion, (completions,) float32.

        Raises:
            ConfigurationError: A conversation is longer than the reward model's context, or needs more memory than
                there is.
        """
        rewards = self.score_what_fits(prompts, completions)
        if unread := int(np.ma.getmaskarray(rewards).sum()):
            raise ConfigurationError(
                f"{unread} conversations have more tokens than the reward model's context of {self.limit}: lower "
                "sampling.max_new_tokens, or use a reward model with a longer context"
            )
        return np.asarray(rewards.data)

    def score_what_fits(self, prompts: list[Messages], completions: list[str]) -> "np.ma.MaskedArray[Any, Any]":
        """Return the reward of each prompt and completion, masked where they are longer than the model's context.

        Equal ones are computed once.

        Raises:
            ConfigurationError: A conversation needs more memory than there is.
        """
        numbers: dict[tuple[str, str], int] = {}
        asked = zip(map(json.dumps, prompts), completions, strict=True)
        places = [numbers.setdefault(pair, len(numbers)) for pair in asked]
        prompt_ids = {own: encode_prompt(self.tokenizer, json.loads(own)) for own, _ in numbers}
        whole = encode_conversations(self.tokenizer, [(json.loads(own), completion) for own, completion in numbers])
        fits = np.array([len(ids) <= self.limit for ids in whole], bool)
        rewards = np.ma.masked_all(len(whole), np.float32)
        if fits.any():
            beginnings = [prompt_ids[own] for own, _ in numbers]
            rewards[fits] = self.rewards(*cut_at_prompts(compress(beginnings, fits), compress(whole, fits)))
        found: np.ma.MaskedArray = rewards[places]
        return found


def check_finite(rewards: pa.Table) -> None:
    """Refuse rewards that are no numbers.

    Raises:
        ConfigurationError: Names the completions.
    """
    bad = np.flatnonzero(~np.isfinite(rewards["reward"].to_numpy()))
    if bad.size:
        ids = [f"{rewards['prompt_id'][i]}/{rewards['completion_id'][i]}" for i in bad[:5].tolist()]
        raise ConfigurationError(
            f"{bad.size} rewards are NaN or infinite, first {', '.join(ids)}: the reward model is broken"
        )


def rewards_table(store: Store, reward_model: Artifact, scoring: ScoringConfig) -> GrowingTable:
    """Return the table that holds every reward that a model gave."""
    inputs, config = {"reward_model": reward_model.digest}, {"scoring": scoring.model_dump(mode="json")}
    key = stage_key("rewards", TABLE_VERSION, scoring.key_fields(), inputs)
    provenance = Provenance(stage="rewards", version=TABLE_VERSION, key=key, inputs=inputs, config=config)
    return GrowingTable(store, "rewards", provenance)


class Found(NamedTuple):
    """What there is of the rewards of a slice of completions."""

    rewards: list[Slice]
    unscored: list[Slice]
    """The completions without a reward."""


def find_rewards(table: GrowingTable, completions: list[Slice]) -> list[Found]:
    """Look up the rewards of each slice of completions, by the parts that the completions are in.

    A part of rewards is named by the digest of the part of completions that it scores; where it does not score all of
    it, a hash of the rows follows. So completions that were drawn anew are never given the rewards of others, and no
    text is read here.
    """
    names = defaultdict(list)
    for name in table.store.list(table.folder):
        names[scored_part(name)].append(name)
    return list(in_parallel(lambda own: _find(table, own, names.get(part_of(own), [])), completions, AT_ONCE))


def part_of(completions: Slice) -> str:
    """Return the name of the part of rewards that scores all of the part that a slice is of."""
    return completions.part.digest[:32]


def scored_part(name: str) -> str:
    """Return the name that a part of rewards would have if it scored all of its part of completions."""
    return name.partition("-")[0]


def unscored(store: Store, reward_model: Artifact, completions: list[Slice], scoring: ScoringConfig) -> list[Slice]:
    """Return the completions that the reward model has not scored, as slices."""
    found = find_rewards(rewards_table(store, reward_model, scoring), completions)
    return [slice_ for own in found for slice_ in own.unscored]


def score_slices(
    store: Store, reward_model: Artifact, completions: list[Slice], prompts: Artifact, scoring: ScoringConfig
) -> tuple[list[Slice], int]:
    """Return slices with the rewards of completions, and how many completions were scored for them."""
    table = rewards_table(store, reward_model, scoring)
    found = find_rewards(table, completions)
    slices, todo = ([slice_ for own in found for slice_ in own[side]] for side in (0, 1))
    scored = []
    if todo:
        warn_of_loss(reward_model, scoring.dtype, "scoring.dtype")
        model = RewardModel(model_folder(reward_model), scoring, trusts_remote_code(reward_model))
        messages = PromptTable(prompts)
        progress = Progress("scoring parts", len(todo))
        for done, (slice_, rows) in enumerate(zip(todo, read_ahead(todo), strict=True), 1):
            scored.append(Slice(table.append(_name(slice_, rows), _score_rows(model, messages, rows))))
            progress.move_to(done)
        progress.close()
    return [*slices, *scored], sum(slice_.part.rows for slice_ in scored)


def _find(table: GrowingTable, completions: Slice, names: list[str]) -> Found:
    """Look up the rewards of a slice among the parts that score its part."""
    name = part_of(completions)
    if name in names and (part := table.find(name)) is not None:
        return Found([completions._replace(part=part, group=None)], [])
    parts = [part for other in names if other != name and (part := table.find(other)) is not None]
    if not parts:
        return Found([], [completions])
    selection = select_slices(parts, completions.completions())
    held = completions_of(completions.part)
    return Found(selection.slices(), slices_of(completions.part, held, selection.missing) if selection.missing else [])


def _name(completions: Slice, rows: pa.Table) -> str:
    """Return the name of the part that holds the rewards of a slice."""
    if completions.is_whole:
        return part_of(completions)
    ids = zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)
    return f"{part_of(completions)}-{part_name([f'{prompt_id} {number}' for prompt_id, number in ids])[:16]}"


def _score_rows(model: RewardModel, messages: PromptTable, rows: pa.Table) -> pa.Table:
    """Return the rewards of completions: NaN for those that the model has no room to read."""
    prompts = [messages[prompt_id] for prompt_id in rows["prompt_id"].to_pylist()]
    rewards = model.score_what_fits(prompts, rows["completion"].to_pylist())
    given = pa.array(rewards.filled(np.nan), pa.float32())
    table = rows.select(["prompt_id", "completion_id"]).append_column("reward", given)
    check_finite(table.filter(pa.array(~np.ma.getmaskarray(rewards))))
    return table


def _preview(
    draft: Draft, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> tuple[Artifact, dict[str, Any]]:
    left = completions.rows
    if completions.digest and reward_model.digest:
        slices = unscored(draft.store, reward_model, read_slices(draft.store, completions), scoring)
        left = sum(slice_.num_rows() for slice_ in slices)
    return pending(completions.rows, "score_completions"), {"completions": left}


def _work(
    store: Store, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> Work:
    table = rewards_table(store, reward_model, scoring)

    def left() -> int:
        slices = unscored(store, reward_model, read_slices(store, completions), scoring)
        return sum(slice_.num_rows() for slice_ in slices)

    return Work(table.provenance.key, left)


@stage(version=4, preview=_preview, work=_work, retries=2)
def score_completions(
    out: Draft, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> Artifact:
    """Score every completion with the reward model: r_j = r(x, y_j)."""
    slices, scored = score_slices(out.store, reward_model, read_slices(out.store, completions), prompts, scoring)
    rewards = np.concatenate([rows["reward"].to_numpy() for rows in read_ahead(slices)])
    unread = int(np.isnan(rewards).sum())
    if unread:
        log(
            f"{unread} of {rewards.size} completions have no reward and are in no pair: with their prompts they are "
            "longer than the reward model's context. Lower sampling.max_new_tokens to have none"
        )
    stats = {"scored": scored, "too_long": unread, **describe(rewards[~np.isnan(rewards)])}
    return commit_slices(out, "rewards", slices, stats)


def describe(rewards: np.ndarray) -> dict[str, Any]:
    """Return mean, standard deviation and a histogram of `BINS` bins; no rewards have neither.

    Args:
        rewards: (completions,) finite numbers.
    """
    values = np.asarray(rewards, np.float64)  # float32 would overflow in the variance, and have no edges between bins
    if not values.size:
        return {"reward_mean": None, "reward_std": None, "histogram": {"counts": [], "edges": []}}
    low, high = float(values.min()), float(values.max())
    if high - low <= 2 * BINS * np.spacing(max(abs(low), abs(high))):  # equal, but for the last bits
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    histogram = {"counts": counts.tolist(), "edges": [float(f"{edge:.7g}") for edge in edges]}
    return {"reward_mean": float(values.mean()), "reward_std": float(values.std()), "histogram": histogram}
