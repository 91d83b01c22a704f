"""RLOO: reads the policy, the reward model and prompts, writes the policy that its own completions have aligned.

REINFORCE with a leave-one-out baseline (arXiv:2402.14740), on-policy. Of k completions y_1 .. y_k of a prompt x

    R_i = r(x, y_i) - beta log pi(y_i|x)/pi_SFT(y_i|x)
    gradient of -sum_i (R_i - mean of the R_j with j != i) log pi(y_i|x) / k

It stands beside RS-DPO for the PPO family: the same reward model, prompts, templates, decoding and reference, and no
value network. Completions are drawn with transformers' `generate`, by the policy as it is at each step.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.rloo import RlooConfig, Rollouts
from tasks.data.conversations import Messages
from tasks.lm.context import in_pieces
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.models.form import stop_ids
from tasks.models.loading import load_policy, longest, model_folder, model_tokenizer, trusts_remote_code
from tasks.models.updates import warn_of_loss
from tasks.pipeline.dry_run import pending
from tasks.pipeline.jobs import Job
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import read_table, read_tables
from tasks.training.drawn import FILE
from tasks.training.rloo_setup import RlooJob, check_enough, prompt_order, rloo_arguments, steps_of
from tasks.training.snapshots import find_snapshots, keep_snapshots, snapshot_facts
from tasks.training.trained_model import CHECKPOINT, commit_model, last_metrics, trained


def prompts_that_fit(policy: Artifact, prompts: Artifact, rloo: RlooConfig, rollouts: Rollouts) -> pa.Table:
    """Return the prompts that leave room for a completion, as `prompt`, in the order of their ids.

    The digest of prompts does not know the order of the rows, so it must not matter to the training.

    Raises:
        ConfigurationError: There are fewer than an optimizer step takes.
    """
    rows = read_table(prompts, ["prompt_id", "messages"]).sort_by("prompt_id")
    rows = rows.select(["messages"]).rename_columns(["prompt"])
    asked = (messages for piece in in_pieces(rows, "measuring prompts") for messages in piece["prompt"].to_pylist())
    kept = rows.filter(pa.array(_fit(policy, asked, rloo, rollouts), pa.bool_()))
    check_enough(rloo, kept.num_rows)
    return kept


def check_prompts_fit(policy: Artifact, prompts: Artifact, rloo: RlooConfig, rollouts: Rollouts) -> None:
    """Refuse prompts of which too few leave room for a completion; no more are tokenized than it takes to see that.

    Raises:
        ConfigurationError: There are fewer than an optimizer step takes.
    """
    asked = (messages for table in read_tables(prompts, ["messages"]) for messages in table["messages"].to_pylist())
    fitting = filter(None, _fit(policy, asked, rloo, rollouts))
    check_enough(rloo, sum(islice(fitting, rloo.prompts_per_step)))


def _fit(policy: Artifact, asked: Iterable[Messages], rloo: RlooConfig, rollouts: Rollouts) -> Iterator[bool]:
    """Yield whether each prompt leaves room for a completion."""
    tokenizer, room = model_tokenizer(policy), longest(policy, rloo.max_length) - rollouts.max_new_tokens
    return (len(encode_prompt(tokenizer, messages)) <= room for messages in asked)


def fit(job: Job) -> None:
    """Train with TRL's RLOO."""
    from transformers import set_seed

    from tasks.training.drawn import Drawn
    from tasks.training.rloo_trainer import KeepDrawn, OnlineTrainer, RolloutRewards
    from tasks.training.saving import weight_dtype
    from tasks.training.trainer import callbacks, lora_config, run_trainer

    config = RlooJob.model_validate(job.config)
    set_seed(config.seed)
    tokenizer, prompts = load_tokenizer(job.model, job.trust_remote_code), job.examples()
    end_ids, steps = sorted(stop_ids(job.model, tokenizer)), steps_of(config, len(prompts))
    order = prompt_order(len(prompts), steps * config.prompts_per_step, config.seed)
    drawn = Drawn(job.folder / CHECKPOINT)
    trainer = OnlineTrainer(
        RolloutRewards(config, tokenizer, end_ids),
        drawn,
        model=load_policy(job.model, weight_dtype(config), job.trust_remote_code),
        args=rloo_arguments(job, config, steps, end_ids),
        train_dataset=prompts.select(order),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, "CAUSAL_LM"),
        callbacks=[KeepDrawn(drawn), *callbacks(job)],
    )
    if config.snapshots:
        trainer.add_callback(keep_snapshots(trainer, job, config))
    run_trainer(trainer, job, config)
    if trainer.is_world_process_zero():
        drawn.save(job.folder)


def rloo_stats(found: dict[str, Any], last: dict[str, float]) -> dict[str, Any]:
    """Return what was drawn and how the training ended.

    Args:
        found: What was drawn, with the ids of the different completions that were trained on.
        last: The last values of the metrics.

    Raises:
        ConfigurationError: No completion had a reward, so that nothing was learned.
    """
    counts = {name: value for name, value in found.items() if name != "different"}
    if not found["different"]:
        raise ConfigurationError(
            f"none of {counts['completions']:,} completions could be trained on ({counts['truncated']:,} were "
            "truncated): raise sampling.max_new_tokens, or set pairs.truncated = keep"
        )
    ends: dict[str, Any] = {name: last[name] for name in ("reward", "kl", "entropy") if name in last}
    return {"completions": len(found["different"]), "drawn": counts, **ends}


def _preview(policy: Artifact, prompts: Artifact, rloo: RlooConfig) -> tuple[Artifact, dict[str, Any]]:
    steps = steps_of(rloo, max(1, prompts.rows))
    cost = {"steps": steps, "completions": steps * rloo.batch_size}
    kept = [pending(0, "train_rloo", step=number).model_dump() for number in range(rloo.snapshots)]
    return pending(0, "train_rloo", **policy.stats, snapshots=kept), cost


@stage(version=1, preview=_preview, gpus="rloo", run_name="RLOO on {prompts.rows} prompts", retries=2)
def train_rloo(
    out: Draft,
    policy: Artifact,
    reward_model: Artifact,
    prompts: Artifact,
    rloo: RlooConfig,
    rollouts: Rollouts,
) -> Artifact:
    """Train the policy on rewards of its own completions, with beta against where it began."""
    warn_of_loss(reward_model, rollouts.scoring.dtype, "scoring.dtype")
    examples = prompts_that_fit(policy, prompts, rloo, rollouts)
    job = RlooJob(
        **rloo.model_dump(),
        rollouts=rollouts,
        reward_model=str(model_folder(reward_model)),
        trust_reward_model=trusts_remote_code(reward_model),
    )
    stats = {"examples": examples.num_rows, "dropped": {"too_long": prompts.rows - examples.num_rows}}
    with trained(out, "tasks.rloo:fit", policy, job, [examples]) as folder:
        stats |= rloo_stats(json.loads((folder / FILE).read_text()), last_metrics(folder))
        kept = find_snapshots(out.store, out.provenance.key, folder)
        stats |= {"snapshots": snapshot_facts(kept, out.store)} if kept else {}
        parts = {out.store.folder_of(snapshot): snapshot.digest for snapshot in kept}
        return commit_model(out, policy, folder, stats, parts=parts)
