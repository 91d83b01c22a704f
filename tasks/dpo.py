"""Direct preference optimization: reads the policy and the pairs, writes the aligned policy.

Loss (arXiv:2305.18290): -log sigma(beta log pi(y_w|x)/pi_SFT(y_w|x) - beta log pi(y_l|x)/pi_SFT(y_l|x)). The reference
pi_SFT is the policy before the first step; completions are trained on by the very tokens that were sampled.
"""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.artifacts import Artifact
from tasks.config import DpoConfig
from tasks.drafts import Draft
from tasks.models import load_policy, model_tokenizer
from tasks.parquet import read_table
from tasks.plan import pending
from tasks.prompts import PromptTable
from tasks.stage import stage
from tasks.storage import Store
from tasks.tables import read_slices
from tasks.tokens import encode_prompt, keep_short, load_tokenizer
from tasks.training import Job, commit_model, trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def join_pairs(
    store: Store, pairs: Artifact, completions: Artifact, prompts: Artifact, tokenizer: "PreTrainedTokenizerBase"
) -> pa.Table:
    """Return `prompt_ids`, `chosen_ids` and `rejected_ids` of each pair, joined by ids and in the order of the ids.

    Raises:
        ValueError: A pair names a completion that is not there.
    """
    order = [("prompt_id", "ascending"), ("chosen_id", "ascending"), ("rejected_id", "ascending")]
    pair_rows = read_table(pairs).sort_by(order).to_pylist()
    wanted = {(row["prompt_id"], row[side]) for row in pair_rows for side in ("chosen_id", "rejected_id")}
    token_ids: dict[tuple[str, int], list[int]] = {}
    for slice_ in read_slices(store, completions):
        rows = slice_.read()
        keys = zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)
        token_ids |= {key: rows["token_ids"][i].as_py() for i, key in enumerate(keys) if key in wanted}
    if missing := wanted - token_ids.keys():
        raise ValueError(f"{len(missing)} paired completions are missing, first {min(missing)}: build the pairs again")
    messages = PromptTable(prompts)
    encoded = {id_: encode_prompt(tokenizer, messages[id_]) for id_ in {prompt_id for prompt_id, _ in wanted}}
    return pa.table(
        {
            "prompt_ids": [encoded[row["prompt_id"]] for row in pair_rows],
            "chosen_ids": [token_ids[row["prompt_id"], row["chosen_id"]] for row in pair_rows],
            "rejected_ids": [token_ids[row["prompt_id"], row["rejected_id"]] for row in pair_rows],
        }
    )


def fit(job: Job) -> None:
    """Train with TRL's DPOTrainer on token ids; with adapters the reference is the model without them."""
    import torch
    from transformers import set_seed
    from trl import DPOConfig as DpoArguments
    from trl import DPOTrainer

    from tasks.trainer import callbacks, lora_config, run_trainer, trainer_arguments, weight_dtype

    class TokenizedDPOTrainer(DPOTrainer):
        """TRL's trainer for examples that are token ids already."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    config = DpoConfig.model_validate(job.config)
    set_seed(config.seed)
    reference_model = None
    if config.lora is None:
        reference_model = load_policy(job.model, getattr(torch, config.dtype), job.trust_remote_code)
    arguments = {"beta": config.beta, "loss_type": [config.loss_type], **trainer_arguments(job, config)}
    trainer = TokenizedDPOTrainer(
        model=load_policy(job.model, weight_dtype(config), job.trust_remote_code),
        ref_model=reference_model,
        args=DpoArguments(**arguments),
        train_dataset=job.examples(),
        processing_class=load_tokenizer(job.model, job.trust_remote_code),
        peft_config=lora_config(config.lora, "CAUSAL_LM"),
        callbacks=callbacks(job),
    )
    run_trainer(trainer, job)


def _preview(
    draft: Draft, policy: Artifact, pairs: Artifact, completions: Artifact, prompts: Artifact, dpo: DpoConfig
) -> tuple[Artifact, dict[str, Any]]:
    cost = {"pairs": pairs.rows if pairs.digest else "as selected", "epochs": dpo.epochs}
    return pending(0, "train_dpo", **policy.stats), cost


@stage(version=1, preview=_preview, retries=2)
def train_dpo(
    out: Draft, policy: Artifact, pairs: Artifact, completions: Artifact, prompts: Artifact, dpo: DpoConfig
) -> Artifact:
    """Train the policy on the pairs with beta, against itself before the training."""
    tokenizer = model_tokenizer(policy)
    table = join_pairs(out.store, pairs, completions, prompts, tokenizer)
    examples, too_long = keep_short(
        table, [["prompt_ids", "chosen_ids"], ["prompt_ids", "rejected_ids"]], dpo.max_length
    )
    stats = {"examples": examples.num_rows, "dropped": {"too_long": too_long}}
    with trained(out, "tasks.dpo:fit", policy, dpo, examples) as folder:
        return commit_model(out, policy, folder, stats)
