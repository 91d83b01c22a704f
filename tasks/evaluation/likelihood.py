"""How likely the reference finds what each policy says: text that it would never write is foreign to it, or broken."""

from collections.abc import Mapping

import pyarrow as pa

from tasks.data.prompt_table import PromptTable
from tasks.lm.memory import frees_memory
from tasks.lm.tokens import encode_prompt
from tasks.models.loading import device, load_policy, model_folder, model_tokenizer, trusts_remote_code
from tasks.pipeline.progress import Progress
from tasks.store.artifacts import Artifact


@frees_memory
def reference_nll(
    reference: Artifact, prompts: Artifact, completions: Mapping[str, pa.Table], dtype: str
) -> dict[str, float]:
    """Return -log pi_ref(y | x) a token, in nats, over each policy's completions; exp of it is the perplexity.

    Args:
        reference: The reference policy.
        prompts: The completions' prompts.
        completions: Name of a policy -> its completions.
        dtype: Type to compute in.
    """
    from tasks.lm.logps import CompletionLogps

    tokenizer, table = model_tokenizer(reference), PromptTable(prompts)
    contexts = {prompt_id: encode_prompt(tokenizer, table[prompt_id]) for prompt_id in table.ids}
    numbers = {prompt_id: number for number, prompt_id in enumerate(contexts)}
    model = load_policy(model_folder(reference), dtype, trusts_remote_code(reference)).to(device())
    logps = CompletionLogps(model)
    found, progress = {}, Progress("log-probabilities", sum(rows.num_rows for rows in completions.values()))
    for name, rows in completions.items():
        prompt_of = [numbers[prompt_id] for prompt_id in rows["prompt_id"].to_pylist()]
        given = list(contexts.values()), rows["token_ids"].to_pylist(), prompt_of
        total = logps(*given, lambda values: progress.advance(len(values))).sum()
        found[name] = float(-total / rows["num_tokens"].to_numpy().sum())
    progress.close()
    return found
