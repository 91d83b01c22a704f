"""Evaluation: reads policies and held-out prompts, writes how each policy compares with a reference."""

import json
from collections.abc import Mapping
from typing import Any

from tasks.config.evaluation import EvaluationConfig
from tasks.config.rewards import COMBINED, SECTION
from tasks.config.settings import Decoding, SamplingConfig, ScoringConfig
from tasks.evaluation.combined import with_combined
from tasks.evaluation.comparison import compare
from tasks.evaluation.divergence import KlSettings, estimate_kl, own_distribution
from tasks.evaluation.drawn import EvaluationSettings, draw, samples_table
from tasks.evaluation.likelihood import reference_nll
from tasks.evaluation.tables import evaluation_page
from tasks.pipeline.dry_run import pending
from tasks.pipeline.stage import stage
from tasks.rewards.functions import GoldReward, load_gold
from tasks.store.artifacts import NOTHING, Artifact, sha256_of
from tasks.store.drafts import Draft
from tasks.store.parquet import table_bytes


def evaluation_settings(
    sampling: SamplingConfig,
    scoring: ScoringConfig,
    evaluation: EvaluationConfig,
    gold: GoldReward,
    reference: str = "sft",
) -> EvaluationSettings:
    """Return the evaluation's settings: completions are drawn as in sampling, k and seed apart."""
    shared = {name: getattr(sampling, name) for name in Decoding.model_fields}
    decoding = Decoding(**{**shared, "k": evaluation.k, "seed": evaluation.seed})
    return EvaluationSettings(reference=reference, decoding=decoding, scoring=scoring, evaluation=evaluation, gold=gold)


def _preview(
    policies: Mapping[str, Artifact], prompts: Artifact, settings: EvaluationSettings
) -> tuple[Artifact, dict[str, Any]]:
    decoding, own = settings.decoding, own_distribution(settings.decoding, settings.evaluation.kl_completions)
    shared = decoding.k if own == decoding.model_copy(update={"k": own.k}) else 0
    completions = prompts.rows * (len(policies) * decoding.k + (len(policies) - 1) * (own.k - shared))
    cost = {
        "prompts": prompts.rows,
        "completions": completions,
        "at most tokens": completions * decoding.max_new_tokens,
    }
    return pending(prompts.rows, "evaluate_policy"), cost


@stage(
    version=5,
    preview=_preview,
    page=evaluation_page,
    gpus="sampling",
    run_name="evaluation on {prompts.rows} prompts",
    retries=2,
    given=lambda policies: NOTHING if len(policies) < 2 else None,
)
def evaluate_policy(
    out: Draft,
    policies: dict[str, Artifact],
    reward_models: dict[str, Artifact],
    prompts: Artifact,
    settings: EvaluationSettings,
) -> Artifact:
    """Compare policies with the reference among them on held-out prompts, by every reward and by the gold one.

    Where a table of combined rewards is among them, rewards are scaled as they were there, and combined.
    """
    if settings.gold.function is not None:
        load_gold(settings.gold)  # another function here is found before anything is sampled
    single = {name: reward for name, reward in reward_models.items() if name != COMBINED}
    drawn = {name: draw(out.store, policy, single, prompts, settings) for name, policy in policies.items()}
    if COMBINED in reward_models:
        drawn = with_combined(drawn, reward_models[COMBINED], settings.decoding.k)
    keeps = {folder: digest for own in drawn.values() for folder, digest in own.parts.items()}
    figures = compare(drawn, settings.reference, settings.evaluation)
    completions = {name: own.rows for name, own in drawn.items()}
    for name, nll in reference_nll(policies[settings.reference], prompts, completions, settings.decoding.dtype).items():
        figures[name]["reference_nll"] = nll
    decoding = own_distribution(settings.decoding, settings.evaluation.kl_completions)
    kl_settings = KlSettings(decoding, settings.evaluation.bootstrap_samples)
    for name in policies.keys() - {settings.reference}:
        kl = estimate_kl(out.store, policies[name], policies[settings.reference], prompts, kl_settings)
        figures[name]["divergence"] = kl.figures
        keeps |= {out.store.folder_of(slice_.part): slice_.part.digest for slice_ in kl.slices}
    stats = {"prompts": prompts.rows, "reference": settings.reference, "policies": figures}
    if settings.optimised != (SECTION,):
        stats["optimised"] = settings.optimised
    text, samples = json.dumps(stats, indent=2, sort_keys=True, allow_nan=False).encode(), samples_table(drawn)
    files = {"evaluation.json": text, "samples.parquet": table_bytes(samples, "evaluation")}
    return out.commit("evaluation", files, sha256_of(text), rows=samples.num_rows, stats=stats, keeps=keeps)
