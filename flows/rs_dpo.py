"""RS-DPO (arXiv:2402.10038): align a language model with pairs selected from its own completions.

python -m flows.rs_dpo configs/hh.yaml --set pairs.eta=0.9 --dry-run
"""

from typing import Any

from prefect import flow, runtime

from flows.command_line import main
from tasks.config.compute import ComputeConfig
from tasks.config.settings import (
    DataConfig,
    EvaluationConfig,
    PairsConfig,
    RewardModelConfig,
    SamplingConfig,
    ScoringConfig,
    SftConfig,
)
from tasks.config.training import DpoConfig
from tasks.dpo import check_prompts, train_dpo
from tasks.evaluate import evaluate_policy, method
from tasks.import_model import import_policy, import_reward_model
from tasks.pairs import build_pairs
from tasks.pipeline.checks import check_compute, check_run, log_unread_settings
from tasks.pipeline.dispatch import cancel_children
from tasks.pipeline.gpus import gpus_needed
from tasks.pipeline.shards import sample_and_score_in_shards
from tasks.pipeline.site import open_site
from tasks.preferences import label_preferences, load_annotations
from tasks.prompts import find_data, load_evaluation_prompts, load_held_out, load_prompts
from tasks.reward_model import check_preferences, train_reward_model
from tasks.rewards.functions import find_gold
from tasks.sample import sample_completions
from tasks.score import score_completions
from tasks.sft import check_demonstrations, train_sft
from tasks.store.artifacts import NOTHING, Artifact
from tasks.training.checks import check_trainings
from tasks.training_data import load_demonstrations, load_preferences


def describe_run() -> str:
    """Name a run by what it works on."""
    parameters = runtime.flow_run.parameters
    data, sampling, pairs = (parameters[name] for name in ("data", "sampling", "pairs"))
    prompts = data.prompts if isinstance(data.prompts, str) else data.prompts.path.rsplit("/", 1)[-1]
    return f"{prompts}, k {sampling.k}, tau {pairs.tau:g}, eta {pairs.eta:g}"


def cancel_stages(flow: Any, flow_run: Any, state: Any) -> None:
    """End what a cancelled run has started on other workers."""
    cancel_children(flow_run.id)


@flow(name="rs-dpo", flow_run_name=describe_run, on_cancellation=[cancel_stages])
def rs_dpo(
    data: DataConfig,
    sft: SftConfig,
    reward_model: RewardModelConfig = RewardModelConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    scoring: ScoringConfig = ScoringConfig(),
    pairs: PairsConfig = PairsConfig(),
    dpo: DpoConfig = DpoConfig(),
    evaluation: EvaluationConfig = EvaluationConfig(),
    compute: ComputeConfig = ComputeConfig(),
    store: str = "./.rsdpo",
) -> dict[str, Artifact]:
    """Align a policy with RS-DPO and compare it with the policy that it started from; return every artifact."""
    check_run(data, sft, reward_model, pairs, dpo, evaluation)
    log_unread_settings(data, sft, reward_model, pairs)
    check_compute(compute, gpus_needed(sft, reward_model, sampling, dpo))
    site = open_site(store, compute)
    files, gold = find_data(site.store, data), find_gold(evaluation.gold_reward)
    base_model = import_policy(site, sft)
    reward_base = import_reward_model(site, reward_model, base_model)
    check_trainings(compute, (sft, base_model), (reward_model, reward_base or base_model), (dpo, base_model))

    asked = files.evaluation_prompts or files.prompts
    held_out = load_held_out(site, asked, base_model, reward_base, data, sampling.max_new_tokens)
    evaluation_prompts = load_evaluation_prompts(site, asked, held_out, data.max_evaluation_prompts)
    prompts = load_prompts(site, files.prompts, held_out, base_model, reward_base, data, sampling.max_new_tokens)
    demonstrations = load_demonstrations(site, files.demonstrations, held_out, base_model, data)
    preferences = load_preferences(site, files.preferences, held_out, reward_base or base_model, data)
    annotated = load_annotations(site, base_model, prompts, preferences, pairs.strategy == "annotation")
    check_demonstrations(base_model, demonstrations, sft)
    check_preferences(reward_base or base_model, preferences, reward_model)
    check_prompts(base_model, prompts, dpo)

    policy = train_sft(site, base_model, demonstrations, sft)  # pi_SFT
    unsampled = NOTHING if annotated else prompts
    if data.preferences == "gold":  # pairs of the policy's own completions
        sample_and_score_in_shards(site, policy, NOTHING, unsampled, sampling, scoring)
        completions = sample_completions(site, policy, prompts, annotated, sampling)
        preferences = label_preferences(site, completions, prompts, gold)
    trained_reward_model = train_reward_model(site, reward_base or policy, preferences, reward_model)  # r(x, y)
    sample_and_score_in_shards(site, policy, trained_reward_model, unsampled, sampling, scoring)
    completions = sample_completions(site, policy, prompts, annotated, sampling)  # y_1 .. y_k ~ pi_SFT(. | x)
    rewards = score_completions(site, trained_reward_model, completions, prompts, scoring)  # r_j = r(x, y_j)
    selected = build_pairs(site, rewards, completions, pairs)  # sigma((r_j - r_l) / tau) > eta
    aligned = train_dpo(site, policy, selected, completions, prompts, dpo)  # beta, reference pi_SFT
    how = method(sampling, scoring, evaluation, gold)
    report = evaluate_policy(site, aligned, policy, trained_reward_model, evaluation_prompts, how)

    return site.finish(
        {
            "held_out": held_out,
            "prompts": prompts,
            "policy": policy,
            "completions": completions,
            "reward_model": trained_reward_model,
            "rewards": rewards,
            "pairs": selected,
            "aligned": aligned,
            "evaluation": report,
        }
    )


if __name__ == "__main__":
    main(rs_dpo)
