"""Reward-model training: reads a model and preference pairs, writes r(x, y) with one scalar head.

Loss (Bradley-Terry): -log sigma(r(x, chosen) - r(x, rejected)); tasks/training/reward_losses.py has others. A prompt is
computed once for its completions of a step, and each of these once for its pairs.
"""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.settings import RewardModelConfig, ScoringConfig
from tasks.data.prompt_table import hash_fraction
from tasks.lm.context import ShortExamples, are_short, check_any_short, in_pieces, single_rows
from tasks.lm.memory import frees_memory
from tasks.lm.tokens import encode_conversations, load_tokenizer
from tasks.models.loading import longest, model_tokenizer, trusts_remote_code
from tasks.models.weights import load_weights
from tasks.pipeline.dry_run import pending
from tasks.pipeline.jobs import Job
from tasks.pipeline.pace import Mean
from tasks.pipeline.progress import Progress, log
from tasks.pipeline.stage import stage
from tasks.rewards.calibration import preference_stats
from tasks.rewards.reward_model import RewardModel
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import read_columns, read_table, read_tables, table_bytes
from tasks.store.schemas import SCHEMAS
from tasks.training.preference_groups import Rankings, total_order
from tasks.training.trained_model import OUTPUT, commit_model, trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDES = [["chosen_ids"], ["rejected_ids"]]


def encode_preferences(
    tokenizer: "PreTrainedTokenizerBase", preferences: pa.Table, use_margin: bool = False
) -> pa.Table:
    """Return `prompt_id`, `chosen_ids` and `rejected_ids`, whole conversations, and the margin where it is used."""
    messages = preferences["messages"].to_pylist()
    columns: dict[str, list[Any]] = {"prompt_id": preferences["prompt_id"].to_pylist()}
    for side in ("chosen", "rejected"):
        both = list(zip(messages, preferences[side].to_pylist(), strict=True))
        columns[f"{side}_ids"] = encode_conversations(tokenizer, both)
    if use_margin:
        columns["margin"] = preferences["margin"].to_pylist()
    ids = pa.list_(pa.int64())
    types = {"prompt_id": pa.string(), "chosen_ids": ids, "rejected_ids": ids, "margin": pa.float64()}
    return pa.table(columns, pa.schema({name: types[name] for name in columns}))


def short_pairs(tokenizer: "PreTrainedTokenizerBase", preferences: pa.Table, longest: int) -> pa.Table:
    """Return the pairs both of whose conversations have at most `longest` tokens."""
    pieces = in_pieces(preferences, "measuring held-out preferences")
    short = [are_short(encode_preferences(tokenizer, rows), SIDES, longest) for rows in pieces]
    return preferences.filter(pa.array(np.concatenate([np.empty(0, bool), *short])))


def split_by_prompt(preferences: pa.Table, fraction: float, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return the pairs to train on and the held-out ones; all pairs of a prompt are on one side."""
    held_out = np.array([hash_fraction(f"{seed}:{i}") < fraction for i in preferences["prompt_id"].to_pylist()], bool)
    return preferences.filter(pa.array(~held_out)), preferences.filter(pa.array(held_out))


def half_of(preferences: pa.Table, half: int, seed: int) -> pa.Table:
    """Return the pairs of half 1 or 2, told apart by the hash of the prompt; 0: all pairs."""
    first = np.array([hash_fraction(f"half:{seed}:{i}") < 0.5 for i in preferences["prompt_id"].to_pylist()], bool)
    return preferences if half == 0 else preferences.filter(pa.array(first == (half == 1)))


def check_preferences(base_model: Artifact, preferences: Artifact, reward_model: RewardModelConfig) -> None:
    """Refuse preferences that no reward model could be trained on, before anything is trained.

    Raises:
        ConfigurationError: A margin is missing that is to be used, or every ranking; all pairs are held out or long.
    """
    if not preferences or reward_model.ready_model:
        return
    table = read_columns(preferences, ["prompt_id", "margin"])
    if reward_model.use_margin and table["margin"].null_count:
        raise ConfigurationError(
            f"{table['margin'].null_count} of {table.num_rows} preference rows have no `margin`, which "
            "reward_model.loss = margin (use_margin) needs in every one: add it or take another loss"
        )
    split = reward_model.evaluation_fraction, reward_model.seed
    halves = [half_of(table, half, reward_model.seed) for half in reward_model.halves]
    if not all(split_by_prompt(half, *split)[0].num_rows for half in halves):
        raise ConfigurationError(
            f"all {table.num_rows} preference pairs"
            f"{' of one half (reward_model.held_out)' if reward_model.held_out else ''} are held out, none is left to "
            "train on: lower "
            f"reward_model.evaluation_fraction = {reward_model.evaluation_fraction:g}, change reward_model.seed, or "
            "add preferences with other prompts"
        )
    if reward_model.loss == "plackett_luce":
        check_rankings(preferences)
    tokenizer = model_tokenizer(base_model)
    pairs = single_rows(split_by_prompt(rows, *split)[0] for rows in read_tables(preferences))
    encoded = (encode_preferences(tokenizer, pair) for pair in pairs)
    check_any_short(encoded, SIDES, longest(base_model, reward_model.max_length))


def check_rankings(preferences: Artifact) -> None:
    """Refuse preferences of which no prompt's pairs make a ranking.

    Raises:
        ConfigurationError: None do.
    """
    table = read_columns(preferences, ["prompt_id", "chosen", "rejected"]).sort_by("prompt_id")
    rows = itertools.groupby(table.to_pylist(), lambda row: row["prompt_id"])
    if not any(total_order([(row["chosen"], row["rejected"]) for row in own]) for _, own in rows):
        raise ConfigurationError(
            f"no prompt's pairs make a ranking, among {table.num_rows} preference rows, but reward_model.loss = "
            "plackett_luce needs some: pairs that do not contradict each other and leave one order; take k_comparisons"
        )


@frees_memory
def score_held_out(folder: Path, held_out: pa.Table, start: Artifact) -> pa.Table:
    """Return the rewards that a trained model gives the sides of held-out pairs."""
    if held_out.num_rows == 0:
        log(
            "no preference pair is held out, so the reward model's accuracy is not measured: raise "
            "reward_model.evaluation_fraction, or add preferences"
        )
        return SCHEMAS["held_out_rewards"].empty_table()
    model, prompts = RewardModel(folder, ScoringConfig(), trusts_remote_code(start)), held_out["messages"].to_pylist()
    progress = Progress("scoring held-out completions", 2 * held_out.num_rows)
    tell, prompt_ids = progress.counting(Mean("reward")), held_out["prompt_id"]
    chosen, rejected = (model.score(prompts, held_out[side].to_pylist(), tell) for side in ("chosen", "rejected"))
    progress.close()
    columns = {"prompt_id": prompt_ids, "chosen_reward": chosen, "rejected_reward": rejected}
    return pa.table(columns).cast(SCHEMAS["held_out_rewards"])


def fit(job: Job) -> None:
    """Train with a loss of our own, in TRL's RewardTrainer."""
    from transformers import set_seed
    from trl import RewardConfig

    from tasks.rewards.heads import head_in_float32, head_modules
    from tasks.rewards.model import why_head_unknown
    from tasks.training.reward_examples import open_preferences
    from tasks.training.reward_trainer import StepRewardTrainer
    from tasks.training.saving import weight_dtype
    from tasks.training.step_trainer import StepCollator, shares, step_arguments
    from tasks.training.trainer import callbacks, lora_config, run_trainer, trainer_arguments

    config = RewardModelConfig.model_validate(job.config)
    set_seed(config.seed)
    tokenizer = load_tokenizer(job.model, job.trust_remote_code)
    model = load_weights(job.model, "reward_base", weight_dtype(config), job.trust_remote_code)
    model.config.pad_token_id = tokenizer.pad_token_id
    head_in_float32(model)
    unknown = why_head_unknown(model)
    collator = StepCollator(open_preferences(model, job.examples(), config, unknown), config)
    trainer = StepRewardTrainer(
        config=config,
        head_unknown=unknown is not None,
        model=model,
        args=RewardConfig(**(trainer_arguments(job, config) | step_arguments(collator))),
        data_collator=collator,
        train_dataset=shares(collator),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, "SEQ_CLS", head_modules(model)),
        callbacks=callbacks(job),
    )
    run_trainer(trainer, job, config)


def _preview(
    base_model: Artifact, preferences: Artifact, reward_model: RewardModelConfig
) -> tuple[Artifact, dict[str, Any]]:
    cost = {"pairs": preferences.rows, "epochs": reward_model.epochs}
    return pending(0, "train_reward_model", **base_model.stats), cost


@stage(
    version=3,
    preview=_preview,
    given=lambda base_model, reward_model: base_model if reward_model.ready_model else None,
    gpus="reward_model",
    run_name="reward model on {preferences.rows} pairs",
    retries=2,
)
def train_reward_model(
    out: Draft, base_model: Artifact, preferences: Artifact, reward_model: RewardModelConfig, half: int = 0
) -> Artifact:
    """Train a reward model on preference pairs, or on one half of them; a ready one is returned as it is."""
    check_preferences(base_model, preferences, reward_model)
    tokenizer = model_tokenizer(base_model)
    # In the order of their ids: the digest does not know the order of the rows, so it must not matter to the shuffle.
    order = [(name, "ascending") for name in ("prompt_id", "chosen", "rejected")]
    table = half_of(read_table(preferences).sort_by(order), half, reward_model.seed)
    train_rows, held_out = split_by_prompt(table, reward_model.evaluation_fraction, reward_model.seed)
    limit = longest(base_model, reward_model.max_length)
    pieces = in_pieces(train_rows, "tokenizing preferences")
    encoded = (encode_preferences(tokenizer, rows, reward_model.use_margin) for rows in pieces)
    examples, held_out = ShortExamples(encoded, SIDES, limit), short_pairs(tokenizer, held_out, limit)
    ranked = Rankings(examples) if reward_model.loss == "plackett_luce" else None
    with trained(out, "tasks.reward_model:fit", base_model, reward_model, ranked or examples) as folder:
        dropped = {"too_long": examples.too_long, **({"unranked": ranked.unranked} if ranked else {})}
        stats = {"examples": (ranked or examples).kept, "dropped": dropped}
        rewards = score_held_out(folder / OUTPUT, held_out, base_model)
        files = {"held_out.parquet": table_bytes(rewards, "held_out_rewards")}
        stats |= {"held_out_pairs": held_out.num_rows, **preference_stats(rewards)}
        return commit_model(out, base_model, folder, stats, files)
