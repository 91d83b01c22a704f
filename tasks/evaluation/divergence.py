"""KL(pi || pi_ref): how far a policy has moved from its reference, estimated on completions of its own.

The log-probabilities are taken at temperature 1 over the whole vocabulary, so the completions are drawn that way too,
whatever the sampling section says: drawn otherwise they would belong to another distribution, and the estimate would be
biased. A completion cut at max_new_tokens counts up to there: what is compared are distributions over cut sequences.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.settings import Decoding
from tasks.data.prompt_table import PromptTable
from tasks.evaluation.intervals import bootstrap_interval
from tasks.lm.memory import frees_memory
from tasks.lm.tokens import encode_prompt
from tasks.models.loading import device, load_policy, model_folder, model_tokenizer, trusts_remote_code
from tasks.pipeline.pace import Mean
from tasks.pipeline.progress import Progress
from tasks.sampling.completions import sample_slices
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.slices import Slice, read_sorted


class KlSettings(NamedTuple):
    """How KL(pi || pi_ref) is estimated."""

    decoding: Decoding
    """How the completions are drawn; see `own_distribution`."""
    bootstrap_samples: int
    """Resamples of the prompts behind the 95% interval."""


class Kl(NamedTuple):
    """An estimate of KL(pi || pi_ref)."""

    figures: dict[str, Any]
    """What `summarize` returns."""
    slices: list[Slice]
    """The completions that the estimate was made on."""


def own_distribution(decoding: Decoding, k: int) -> Decoding:
    """Return the settings that draw k completions a prompt from the policy's own distribution.

    Where `decoding` draws from that distribution already, its completions are taken, and more only if it draws fewer
    than k.
    """
    plain = decoding.model_copy(update={"temperature": 1.0, "top_p": 1.0, "top_k": 0})
    return plain.model_copy(update={"k": max(k, decoding.k) if plain == decoding else k})


def estimate_kl(store: Store, policy: Artifact, reference: Artifact, prompts: Artifact, settings: KlSettings) -> Kl:
    """Estimate KL(pi || pi_ref) on prompts: draw completions of the policy where the store lacks them, compare both.

    Raises:
        ConfigurationError: The models have different vocabularies, or a completion's divergence is no number.
    """
    slices, _ = sample_slices(store, policy, prompts, settings.decoding)
    rows = read_sorted(slices)
    kl = _divergences(policy, reference, PromptTable(prompts), rows, settings.decoding.dtype)
    if not np.isfinite(kl).all():
        raise ConfigurationError(
            f"{(~np.isfinite(kl)).sum()} of {kl.size} completions have a divergence that is no number: the policy "
            f"{policy.uri} or the reference {reference.uri} is broken, train it anew"
        )
    figures = summarize(rows, kl, settings.bootstrap_samples, settings.decoding.seed)
    return Kl(figures, slices)


def summarize(rows: pa.Table, kl: np.ndarray, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Return the divergence a sequence and a token, in nats, with 95% intervals over prompts.

    Args:
        rows: Completions, the same number of each prompt, ordered by prompt.
        kl: (completions,) divergence of each completion, summed over its positions, in nats.
        bootstrap_samples: Resamples of the prompts.
        seed: Seed of the resampling.
    """
    prompts = len(rows["prompt_id"].unique())
    per_prompt = np.stack([kl, rows["num_tokens"].to_numpy()], 1).reshape(prompts, -1, 2).mean(1)
    figures: dict[str, Any] = {
        "temperature": 1.0,
        "completions": rows.num_rows,
        "truncated": rows["finish_reason"].to_pylist().count("length"),
    }
    for name, statistic in (("sequence", per_sequence), ("token", per_token)):
        low, high = bootstrap_interval(per_prompt, statistic, bootstrap_samples, seed)
        figures |= {f"kl_{name}": float(statistic(per_prompt, axis=0)), f"kl_{name}_low": low, f"kl_{name}_high": high}
    return figures


@frees_memory
def _divergences(policy: Artifact, reference: Artifact, prompts: PromptTable, rows: pa.Table, dtype: str) -> np.ndarray:
    """Return the divergence of each completion, (completions,) in nats, with both models in memory at once."""
    from tasks.lm.logps import CompletionDivergence

    tokenizer, numbers = model_tokenizer(policy), dict[str, int]()
    prompt_of = [numbers.setdefault(prompt_id, len(numbers)) for prompt_id in rows["prompt_id"].to_pylist()]
    contexts = [encode_prompt(tokenizer, prompts[prompt_id]) for prompt_id in numbers]
    models = (
        load_policy(model_folder(model), dtype, trusts_remote_code(model)).to(device()) for model in (policy, reference)
    )
    divergences, mean = CompletionDivergence(*models), Mean("KL (nats)")
    progress = Progress("KL of completions", rows.num_rows)
    found = divergences(contexts, rows["token_ids"].to_pylist(), prompt_of, progress.counting(mean))
    progress.close()
    return found


def per_sequence(rows: np.ndarray, *, axis: int) -> Any:
    """Return the mean divergence per completion.

    Args:
        rows: (..., prompts, 2) each prompt's mean divergence and mean number of tokens.
        axis: That of the prompts.
    """
    return rows[..., 0].mean(axis)


def per_token(rows: np.ndarray, *, axis: int) -> Any:
    """Return the divergence per token: the sum over all completions, divided by the number of all their tokens.

    Args:
        rows: (..., prompts, 2) each prompt's mean divergence and mean number of tokens.
        axis: That of the prompts.
    """
    return rows[..., 0].sum(axis) / rows[..., 1].sum(axis)
