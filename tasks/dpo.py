"""Direct preference optimization: reads the policy and the pairs, writes the aligned policy.

Loss (arXiv:2305.18290): -log sigma(beta log pi(y_w|x)/pi_SFT(y_w|x) - beta log pi(y_l|x)/pi_SFT(y_l|x)). The reference
is a frozen policy, pi_SFT as a rule; completions are trained on by the very tokens that were sampled. A prompt has many
completions and a completion is in many pairs: each is forwarded once.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.training import DpoConfig
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.models.loading import device, load_policy, model_tokenizer
from tasks.pipeline.dry_run import pending
from tasks.pipeline.jobs import Job
from tasks.pipeline.progress import log
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import read_tables
from tasks.store.scratch import scratch_folder
from tasks.training.dpo_examples import ExampleBuilder
from tasks.training.packs import DpoExample, Limits, PackSchedule, schedule_packs
from tasks.training.reference import WITHOUT_REF, find_ref_logps, read_examples
from tasks.training.trained_model import commit_model, trained, write_tables

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import DPOConfig as DpoArguments

    from tasks.lm.lengths import Lengths
    from tasks.training.dpo_trainer import OwnLoss


class ExamplesOnDisk(Sequence[DpoExample]):
    """The examples of a job in the order of their prompt ids, each read from disk when it is asked for."""

    def __init__(self, job: Job) -> None:
        """Sort the rows by prompt_id: their order on disk may differ between two equal tables of pairs."""
        self.rows = job.examples()
        self.order = np.argsort(np.array(self.rows["prompt_id"]))

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.order)

    def __getitem__(self, number: Any) -> Any:
        """Return an example."""
        row = self.rows[int(self.order[number])]
        return DpoExample(*(row[name] for name in ("prompt", "completions", "ref_logps", "chosen", "rejected")))


def with_ref_logps(folder: Path, ref_logps: dict[str, float]) -> Iterator[pa.Table]:
    """Yield the examples of a folder with the log-probabilities of their completions under the reference."""
    for rows in read_examples(folder):
        column = [[ref_logps[id_] for id_ in ids] for ids in rows["sequence_ids"].to_pylist()]
        kept = rows.select(["prompt_id", "prompt", "completions", "chosen", "rejected"])
        yield kept.append_column("ref_logps", pa.array(column, pa.list_(pa.float64())))


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
    """Train with TRL's loss on packs of whole prompts."""
    from transformers import set_seed

    from tasks.lm.prefix_forward import name_body
    from tasks.training.dpo_trainer import PackCollator, PackedDPOTrainer, pack_numbers
    from tasks.training.trainer import callbacks, lora_config, run_trainer, weight_dtype

    config = DpoConfig.model_validate(job.config)
    set_seed(config.seed)
    model = load_policy(job.model, weight_dtype(config), job.trust_remote_code)
    name_body(model)
    shared, lengths = sharing(model, config)
    limits = Limits(config.batch_size, config.tokens_per_batch, config.devices, shared)
    examples = ExamplesOnDisk(job)
    schedule = schedule_packs(examples, limits, config.epochs, config.max_steps, config.seed)
    ours, theirs = split_losses(config)
    trainer = PackedDPOTrainer(
        own_losses=ours,
        model=model,
        args=dpo_arguments(job, config, theirs, schedule),
        data_collator=PackCollator(examples, schedule.packs, shared, lengths),
        train_dataset=pack_numbers(schedule),
        processing_class=load_tokenizer(job.model, job.trust_remote_code),
        peft_config=lora_config(config.lora, "CAUSAL_LM"),
        callbacks=callbacks(job),
    )
    run_trainer(trainer, job, config)


def dpo_arguments(
    job: Job, config: DpoConfig, losses: list[tuple[str, float]], schedule: PackSchedule
) -> "DpoArguments":
    """Return the configuration of TRL's trainer, which walks through packs in their order.

    Args:
        job: The training.
        config: The section of the configuration.
        losses: Names and weights of the losses that TRL computes.
        schedule: The packs.
    """
    from trl import DPOConfig as DpoArguments

    from tasks.training.trainer import trainer_arguments

    arguments = trainer_arguments(job, config) | {
        "beta": config.beta,
        "label_smoothing": config.label_smoothing,
        "loss_type": [name for name, _ in losses] or ["sigmoid"],
        "loss_weights": [weight for _, weight in losses] or [0.0],
        "precompute_ref_log_probs": True,
        "router_aux_loss_coef": 0.0,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": schedule.accumulation,
        "max_steps": schedule.steps,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
    }
    return DpoArguments(**arguments)


def split_losses(config: DpoConfig) -> tuple[list[tuple["OwnLoss", float]], list[tuple[str, float]]]:
    """Return our own losses with their weights, and the names of TRL's losses with theirs."""
    from tasks.training.losses import cdpo_loss

    weights = config.loss_weights or (1.0,) * len(config.losses)
    named = list(zip(config.losses, weights, strict=True))
    if not config.label_smoothing:
        return [], named
    cdpo = functools.partial(cdpo_loss, label_smoothing=config.label_smoothing)
    return [(cdpo, w) for name, w in named if name == "sigmoid"], [pair for pair in named if pair[0] != "sigmoid"]


def is_sharded(config: DpoConfig) -> bool:
    """Tell whether the weights are spread over the devices, which must then call the model alike."""
    return bool(config.extra.get("fsdp") or config.extra.get("deepspeed"))


def sharing(model: "PreTrainedModel", config: DpoConfig) -> tuple[bool, "Lengths | None"]:
    """Return whether each prompt is computed once for its completions, and what is forwarded together; log why not.

    Raises:
        ConfigurationError: The devices would forward sequences together that must not be.
    """
    from tasks.lm.lengths import rotary_lengths
    from tasks.lm.sharing import model_lengths, why_not_shared

    switch = rotary_lengths(model.config.get_text_config()).switch
    if is_sharded(config):
        if switch is not None and config.max_length > switch:
            raise ConfigurationError(
                f"dpo.max_length = {config.max_length} must be at most {switch} with dpo.extra.fsdp or deepspeed: "
                "longer sequences have other rotary frequencies in this model, and one call would take both kinds"
            )
        reason: str | None = "the weights are spread over the devices, which must call the model alike"
        lengths = None
    elif config.extra.get("gradient_checkpointing"):
        reason, lengths = "gradient checkpointing keeps no keys and values", model_lengths(model, shared=False)
    else:
        reason = why_not_shared(model.to(device()))
        lengths = model_lengths(model, shared=reason is None)
        if lengths.shared_up_to is not None and not lengths.shares(config.max_length, 0):
            reason = reason or f"dpo.max_length = {config.max_length} allows sequences that must not share theirs"
    if reason:
        log(f"each completion is forwarded once, with its prompt, since prompts cannot be shared: {reason}")
    else:
        log("each prompt is forwarded once for its completions, and each completion once for its pairs")
    return reason is None, lengths


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
    return pending(0, "train_dpo", **policy.stats), cost


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
        builder = ExampleBuilder(pairs, prompts, model_tokenizer(policy), dpo.max_length)
        write_tables(folder / WITHOUT_REF, builder.build(out.store, completions))
        ref_logps = find_ref_logps(out.store, reference, dpo, folder)
        stats = {
            "examples": builder.kept,
            "completions": len(ref_logps.by_sequence),
            "ref_logps_computed": ref_logps.forwarded,
            "dropped": {"too_long": builder.too_long},
        }
        with trained(out, "tasks.dpo:fit", policy, dpo, with_ref_logps(folder, ref_logps.by_sequence)) as trained_in:
            return commit_model(out, policy, trained_in, stats, ref_logps.parts)
