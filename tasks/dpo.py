"""Direct preference optimization: reads the policy and the pairs, writes the aligned policy.

Loss (arXiv:2305.18290): -log sigma(beta log pi(y_w|x)/pi_SFT(y_w|x) - beta log pi(y_l|x)/pi_SFT(y_l|x)). The reference
is a frozen policy, pi_SFT as a rule; completions are trained on by the very tokens that were sampled. A prompt has many
completions and a completion is in many pairs: each is forwarded once. tasks/training/losses.py has other losses.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.losses import needs, needs_reference
from tasks.config.training import DpoConfig
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.models.loading import load_policy, model_tokenizer
from tasks.pipeline.dry_run import pending
from tasks.pipeline.jobs import Job
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import read_tables
from tasks.store.scratch import scratch_folder
from tasks.training.dpo_examples import ExampleBuilder
from tasks.training.dpo_setup import (
    dpo_arguments,
    mean_scale,
    plan_measuring,
    plan_training,
    split_examples,
    split_losses,
)
from tasks.training.packs import Limits
from tasks.training.reference import WITHOUT_REF, find_ref_logps, read_examples, sequences_of
from tasks.training.shared_prompts import plan_sharing
from tasks.training.snapshots import find_snapshots, keep_snapshots, snapshot_facts
from tasks.training.trained_model import commit_model, last_metrics, trained, write_tables
from tasks.training.unrelated import add_unrelated


def with_ref_logps(folder: Path, ref_logps: dict[str, float] | None) -> Iterator[pa.Table]:
    """Yield the examples of a folder with the log-probabilities of their completions under the reference, if any."""
    for rows in read_examples(folder):
        kept = rows.drop_columns(["completion_ids", "sequence_ids"])
        if ref_logps is not None:
            column = [[ref_logps[id_] for id_ in ids] for ids in rows["sequence_ids"].to_pylist()]
            kept = kept.append_column("ref_logps", pa.array(column, pa.list_(pa.float64())))
        yield kept


def check_prompts(base_model: Artifact, prompts: Artifact, dpo: DpoConfig) -> None:
    """Refuse prompts that all leave no room for a completion, before anything is sampled.

    Raises:
        ConfigurationError: All have `dpo.max_length` tokens or more.
    """
    tokenizer = model_tokenizer(base_model)
    rows = (messages for table in read_tables(prompts, ["messages"]) for messages in table["messages"].to_pylist())
    if prompts.rows and not any(len(encode_prompt(tokenizer, messages)) < dpo.max_length for messages in rows):
        raise ConfigurationError(
            f"all {prompts.rows} prompts have dpo.max_length = {dpo.max_length} tokens or more, so no pair of their "
            "completions could be trained on: raise it"
        )


def fit(job: Job) -> None:
    """Train with TRL's loss, and our own, on packs of whole prompts."""
    from transformers import set_seed

    from tasks.lm.prefix_forward import name_body
    from tasks.training.dpo_trainer import PackedDPOTrainer
    from tasks.training.held_out import MeasureHeldOut
    from tasks.training.pack_collator import PackCollator, pack_numbers
    from tasks.training.saving import weight_dtype
    from tasks.training.trainer import callbacks, lora_config, run_trainer

    config = DpoConfig.model_validate(job.config)
    set_seed(config.seed)
    model = load_policy(job.model, weight_dtype(config), job.trust_remote_code)
    name_body(model)
    shared, lengths = plan_sharing(model, config)
    limits = Limits(config.batch_size, config.tokens_per_batch, config.devices, shared)
    examples, held_out = split_examples(job, config)
    schedule = plan_training(examples, limits, config)
    ours, theirs = split_losses(config)
    trainer = PackedDPOTrainer(
        own_losses=ours,
        mean_scale=mean_scale(config),
        model=model,
        args=dpo_arguments(job, config, theirs, schedule),
        data_collator=PackCollator(examples, schedule.packs, shared, lengths),
        train_dataset=pack_numbers(schedule),
        processing_class=load_tokenizer(job.model, job.trust_remote_code),
        peft_config=lora_config(config.lora, "CAUSAL_LM"),
        callbacks=callbacks(job),
    )
    if config.snapshots:
        trainer.add_callback(keep_snapshots(trainer, job, config))
    if len(held_out):
        packs = plan_measuring(held_out, limits, config)
        trainer.add_callback(MeasureHeldOut(trainer, PackCollator(held_out, packs, shared, lengths)))
    run_trainer(trainer, job, config)


def dpo_stats(last: Mapping[str, float], dpo: DpoConfig) -> dict[str, Any]:
    """Return how a training ended: log-ratios in nats a completion, and the held-out pairs where there are such.

    Args:
        last: The last values of the metrics; TRL's rewards are beta times the log-ratio. Losses without a reference
            have no log-ratios.
        dpo: Settings of the training.
    """
    sides = ("chosen", "rejected") if needs_reference(dpo.losses) else ()
    ratios = {f"{side}_log_ratio": last[f"rewards/{side}"] / dpo.beta for side in sides}
    names = {"accuracy": "rewards/accuracies", "margin": "rewards/margins"}
    held_out = {name: last[f"held_out/{name}"] for name in names if f"held_out/{name}" in last}
    return {**ratios, **{name: last[metric] for name, metric in names.items()}, "held_out": held_out}


def check_reference(policy: Artifact, reference: Artifact) -> None:
    """Refuse a reference that reads other tokens than the policy: its log-probabilities would be of other texts.

    Raises:
        ConfigurationError: Their vocabularies differ.
    """
    if policy.digest != reference.digest:
        ours, theirs = (model_tokenizer(model).get_vocab() for model in (policy, reference))
        if ours != theirs:
            raise ConfigurationError(
                f"the reference {reference.uri} has another vocabulary than the policy {policy.uri}: take a reference "
                "that the policy was trained from"
            )


def _preview(policy: Artifact, pairs: Artifact, dpo: DpoConfig) -> tuple[Artifact, dict[str, Any]]:
    cost = {"pairs": pairs.rows if pairs.digest else "as selected", "epochs": dpo.epochs}
    kept = [pending(0, "train_dpo", step=number).model_dump() for number in range(dpo.snapshots)]
    return pending(0, "train_dpo", **policy.stats, snapshots=kept), cost


@stage(
    version=3,
    preview=_preview,
    gpus="dpo",
    run_name="DPO on {pairs.rows} pairs",
    retries=2,
    same={"reference": "policy"},
)
def train_dpo(
    out: Draft,
    policy: Artifact,
    reference: Artifact,
    pairs: Artifact,
    completions: Artifact,
    prompts: Artifact,
    dpo: DpoConfig,
) -> Artifact:
    """Train the policy on the pairs with beta, against the frozen reference."""
    check_reference(policy, reference)
    with scratch_folder(f"{out.provenance.key[:16]}-examples") as folder:
        with_gaps = needs(dpo.losses, "reward_gaps")
        builder = ExampleBuilder(pairs, prompts, model_tokenizer(policy), dpo.max_length, with_gaps)
        builder.pairs.check_gaps(dpo)
        write_tables(folder / WITHOUT_REF, builder.build(out.store, completions))
        unique = len(sequences_of(folder))
        if needs(dpo.losses, "reference_reward"):
            add_unrelated(folder, dpo.max_length)
        ref_logps = find_ref_logps(out.store, reference, dpo, folder) if needs_reference(dpo.losses) else None
        stats = {
            "examples": builder.kept,
            "completions": unique,
            "ref_logps_computed": ref_logps.forwarded if ref_logps else 0,
            "dropped": {"too_long": builder.too_long},
        }
        rows = with_ref_logps(folder, ref_logps.by_sequence if ref_logps else None)
        with trained(out, "tasks.dpo:fit", policy, dpo, rows) as trained_in:
            stats |= dpo_stats(last_metrics(trained_in), dpo)
            kept = find_snapshots(out.store, out.provenance.key, trained_in)
            stats |= {"snapshots": snapshot_facts(kept, out.store)} if kept else {}
            parts = {out.store.folder_of(snapshot): snapshot.digest for snapshot in kept}
            keeps = ref_logps.parts if ref_logps else {}
            return commit_model(out, policy, trained_in, stats, keeps=keeps, parts=parts)
