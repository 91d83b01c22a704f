"""RS-DPO (arXiv:2402.10038): align a language model with pairs selected from its own completions.

python -m flows.rs_dpo configs/hh.yaml --set pairs.eta=0.9 --dry-run
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import check_run_command

    check_run_command()


from typing import Any

from prefect import flow, runtime

from flows.command_line import main
from flows.inputs import check_settings, load_inputs
from flows.labels import label_or_load
from flows.stage_order import stage_order
from tasks.choose_snapshot import choose_snapshot
from tasks.combine_rewards import combine_rewards, of_several
from tasks.config.compute import ComputeConfig
from tasks.config.data import DataConfig
from tasks.config.evaluation import EvaluationConfig
from tasks.config.rewards import NO_REWARDS, Rewards, artifact_name
from tasks.config.settings import RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig
from tasks.dpo import train_dpo
from tasks.evaluate import evaluate_policy
from tasks.measure_policies import measure_policies
from tasks.monitors.judging import MonitorsConfig
from tasks.pairs import build_pairs
from tasks.pipeline.configuration import Config
from tasks.pipeline.dispatch import cancel_children
from tasks.pipeline.site import open_site
from tasks.publishing.card import write_card
from tasks.report.watching import watched
from tasks.reward_model import train_reward_model
from tasks.sample import sample_completions
from tasks.score import score_completions
from tasks.selection.strategies import PairsConfig
from tasks.sft import train_sft
from tasks.store.artifacts import Artifact
from tasks.training.snapshots import snapshots


def name_run() -> str:
    """Name a run by what it works on."""
    parameters = runtime.flow_run.parameters
    data, sampling, pairs = (parameters[name] for name in ("data", "sampling", "pairs"))
    prompts = data.prompts if isinstance(data.prompts, str) else data.prompts.path.rsplit("/", 1)[-1]
    pilot = "" if data.pilot is None else f"pilot of {data.pilot} prompts of "
    return f"{pilot}{prompts}, k {sampling.k}, tau {pairs.tau:g}, eta {pairs.eta:g}"


def cancel_stages(flow: Any, flow_run: Any, state: Any) -> None:
    """End what a cancelled run has started on other workers."""
    cancel_children(flow_run.id)


@flow(name="rs-dpo", flow_run_name=name_run, on_cancellation=[cancel_stages])
def rs_dpo(
    data: DataConfig,
    sft: SftConfig,
    reward_model: RewardModelConfig = RewardModelConfig(),
    rewards: Rewards = NO_REWARDS,
    sampling: SamplingConfig = SamplingConfig(),
    scoring: ScoringConfig = ScoringConfig(),
    pairs: PairsConfig = PairsConfig(),
    dpo: DpoConfig = DpoConfig(),
    evaluation: EvaluationConfig = EvaluationConfig(),
    monitors: MonitorsConfig = MonitorsConfig(),
    compute: ComputeConfig = ComputeConfig(),
    store: str = "./.rsdpo",
) -> dict[str, Artifact]:
    """Align a policy with RS-DPO and compare it with the policy that it started from; return every artifact."""
    config = Config(**locals())
    check_settings(config)
    site = watched(open_site(store, compute, config, stage_order(config)), config)
    given = load_inputs(site, config)  # models and data
    prompts = given.prompts

    policy = train_sft(site, given.base_model, given.demonstrations, sft)  # pi_SFT
    completions = given.annotated or sample_completions(site, policy, prompts, sampling)  # y_1 .. y_k ~ pi_SFT(. | x)
    preferences = label_or_load(site, given, completions, prompts)
    reward_models = {
        name: train_reward_model(site, own.base or policy, own.preferences or preferences, own.config, own.half)
        for name, own in given.reward_models.items()
    }
    every = reward_models | given.called  # r(x, y) by name
    scored = {name: score_completions(site, every[name], completions, prompts, scoring) for name in config.selecting}
    combined = combine_rewards(site, scored, completions, config.combination)  # r_j, of one reward or of several
    selected = build_pairs(site, combined, completions, pairs)  # sigma((r_j - r_l) / tau) > eta
    trained = train_dpo(site, policy, policy, selected, completions, prompts, given.dpo)  # beta, reference pi_SFT
    judged_by = every | of_several(combined)
    along = {"sft": policy, **snapshots(trained, policy, dpo.keep == "best")}  # a curve of reward against KL
    curve = evaluate_policy(site, along, judged_by, given.evaluation_prompts, given.evaluation)
    aligned = choose_snapshot(site, trained, policy, curve, given.dpo, config.held_out)  # the last one, or the best
    policies = {"sft": policy, "aligned": aligned}
    compared = evaluate_policy(site, policies, judged_by, given.evaluation_prompts, given.evaluation)
    measured = measure_policies(site, policies, given.benchmarks, evaluation.benchmarks)  # MT-Bench, win rates, lm-eval

    artifacts = site.finish(
        {
            "held_out": given.held_out,
            "prompts": prompts,
            "policy": policy,
            "completions": completions,
            **{artifact_name(name): reward for name, reward in every.items()},
            "rewards": combined,
            "pairs": selected,
            **({} if aligned == trained else {"trained": trained}),
            "aligned": aligned,
            "evaluation": compared,
            "curve": curve,
            **({"benchmarks": measured} if measured else {}),
        }
    )
    write_card(site)
    return artifacts


if __name__ == "__main__":
    main(rs_dpo)
