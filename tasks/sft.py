"""Supervised fine-tuning: reads a base model and demonstrations, writes the policy pi_SFT."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.config.settings import SftConfig
from tasks.lm.context import ShortExamples, check_any_short, in_pieces, single_rows
from tasks.lm.tokens import encode_completion, encode_prompt, load_tokenizer
from tasks.models.loading import load_policy, longest, model_tokenizer
from tasks.pipeline.dry_run import pending
from tasks.pipeline.jobs import Job
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import read_table, read_tables
from tasks.training.trained_model import commit_model, trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_demonstrations(tokenizer: "PreTrainedTokenizerBase", demonstrations: pa.Table) -> pa.Table:
    """Return `input_ids` and `completion_mask` (1 on completion tokens, where the loss is) of each demonstration."""
    input_ids, masks = [], []
    for row in demonstrations.to_pylist():
        prompt = encode_prompt(tokenizer, row["messages"])
        completion = encode_completion(tokenizer, row["completion"], row["messages"])
        input_ids.append(prompt + completion)
        masks.append([0] * len(prompt) + [1] * len(completion))
    ids = pa.list_(pa.int64())
    return pa.table(
        {"input_ids": input_ids, "completion_mask": masks}, pa.schema({"input_ids": ids, "completion_mask": ids})
    )


def check_demonstrations(base_model: Artifact, demonstrations: Artifact, sft: SftConfig) -> None:
    """Refuse demonstrations that are all too long to train on, before anything is trained.

    Raises:
        ConfigurationError: All are longer than `sft.max_length` or the model's context.
    """
    if demonstrations and not sft.ready_model:
        tokenizer = model_tokenizer(base_model)
        encoded = (encode_demonstrations(tokenizer, row) for row in single_rows(read_tables(demonstrations)))
        check_any_short(encoded, [["input_ids"]], longest(base_model, sft.max_length))


def fit(job: Job) -> None:
    """Train with TRL's SFTTrainer, loss on completion tokens only."""
    from transformers import set_seed
    from trl import SFTConfig as SftArguments

    from tasks.training.saving import weight_dtype
    from tasks.training.sft_trainer import Demonstrations, StepSFTTrainer
    from tasks.training.step_trainer import StepCollator, shares, step_arguments
    from tasks.training.trainer import callbacks, lora_config, run_trainer, trainer_arguments

    config = SftConfig.model_validate(job.config)
    set_seed(config.seed)
    tokenizer = load_tokenizer(job.model, job.trust_remote_code)
    model = load_policy(job.model, weight_dtype(config), job.trust_remote_code)
    model.config.get_text_config().pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    padded_to = config.extra.get("pad_to_multiple_of")
    collator = StepCollator(Demonstrations(job.examples(), tokenizer.pad_token_id, padded_to), config)
    arguments = {"completion_only_loss": True, "packing": False}
    arguments |= trainer_arguments(job, config) | step_arguments(collator)
    trainer = StepSFTTrainer(
        model=model,
        args=SftArguments(**arguments),
        data_collator=collator,
        train_dataset=shares(collator),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, "CAUSAL_LM"),
        callbacks=callbacks(job),
    )
    run_trainer(trainer, job, config)


def _preview(base_model: Artifact, demonstrations: Artifact, sft: SftConfig) -> tuple[Artifact, dict[str, Any]]:
    return pending(0, "train_sft", **base_model.stats), {"examples": demonstrations.rows, "epochs": sft.epochs}


@stage(
    version=3,
    preview=_preview,
    given=lambda base_model, sft: base_model if sft.ready_model else None,
    gpus="sft",
    run_name="SFT on {demonstrations.rows} demonstrations",
    retries=2,
)
def train_sft(out: Draft, base_model: Artifact, demonstrations: Artifact, sft: SftConfig) -> Artifact:
    """Fine-tune the base model on the demonstrations; a ready policy is returned as it is."""
    tokenizer = model_tokenizer(base_model)
    # In the order of their ids: the digest does not know the order of the rows, so it must not matter to the shuffle.
    table = read_table(demonstrations).sort_by([("prompt_id", "ascending"), ("completion", "ascending")])
    limit = longest(base_model, sft.max_length)
    encoded = (encode_demonstrations(tokenizer, rows) for rows in in_pieces(table, "tokenizing demonstrations"))
    examples = ShortExamples(encoded, [["input_ids"]], limit)
    with trained(out, "tasks.sft:fit", base_model, sft, examples) as folder:
        stats = {"examples": examples.kept, "dropped": {"too_long": examples.too_long}}
        return commit_model(out, base_model, folder, stats)
