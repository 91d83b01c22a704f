"""RLOO (arXiv:2402.14740): align a language model on rewards of completions that it draws while it trains.

What comparisons have beside RS-DPO for the PPO family (`algorithm: rloo` in an arm of `flows.compare`). One stage takes
the place of sampling, scoring, pairs and DPO; all else is that of flows/rs_dpo.py.
"""

from prefect import flow, runtime

from flows.inputs import check_settings, load_inputs
from flows.labels import label_or_load
from flows.rs_dpo import cancel_stages
from flows.stage_order import stage_order
from tasks.config.compute import ComputeConfig
from tasks.config.data import DataConfig
from tasks.config.evaluation import EvaluationConfig
from tasks.config.rewards import SECTION
from tasks.config.rloo import RlooConfig
from tasks.config.settings import RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.evaluate import evaluate_policy
from tasks.measure_policies import measure_policies
from tasks.monitors.judging import MonitorsConfig
from tasks.pipeline.configuration import RlooRun
from tasks.pipeline.site import open_site
from tasks.report.watching import watched
from tasks.reward_model import train_reward_model
from tasks.rloo import train_rloo
from tasks.sample import sample_completions
from tasks.selection.strategies import PairsConfig
from tasks.sft import train_sft
from tasks.store.artifacts import Artifact
from tasks.training.snapshots import snapshots


def name_run() -> str:
    """Name a run by what it works with."""
    given = runtime.flow_run.parameters["rloo"]
    return f"RLOO, k {given.k}, beta {given.beta:g}"


@flow(name="rloo", flow_run_name=name_run, on_cancellation=[cancel_stages])
def rloo(
    data: DataConfig,
    sft: SftConfig,
    reward_model: RewardModelConfig = RewardModelConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    scoring: ScoringConfig = ScoringConfig(),
    pairs: PairsConfig = PairsConfig(),
    rloo: RlooConfig = RlooConfig(),
    evaluation: EvaluationConfig = EvaluationConfig(),
    monitors: MonitorsConfig = MonitorsConfig(),
    compute: ComputeConfig = ComputeConfig(),
    store: str = "./.rsdpo",
) -> dict[str, Artifact]:
    """Align a policy with RLOO and compare it with the policy that it started from; return every artifact."""
    config = RlooRun(**locals())
    check_settings(config)
    site = watched(open_site(store, compute, config, stage_order(config)), config)
    given = load_inputs(site, config)  # models and data
    prompts, preferences = given.prompts, given.preferences

    policy = train_sft(site, given.base_model, given.demonstrations, sft)  # pi_SFT
    if data.labels_completions:  # labels of what pi_SFT says, so that the reward model is RS-DPO's
        completions = sample_completions(site, policy, prompts, sampling)
        preferences = label_or_load(site, given, completions, prompts)
    reward_models = {
        name: train_reward_model(site, own.base or policy, preferences, own.config, own.half)
        for name, own in given.reward_models.items()
    }
    r = reward_models[SECTION]  # r(x, y)
    aligned = train_rloo(site, policy, r, prompts, rloo, config.rollouts)  # y ~ pi(. | x), beta, reference pi_SFT
    along = {"sft": policy, **snapshots(aligned, policy)}  # the way there: a curve of reward against KL
    curve = evaluate_policy(site, along, reward_models, given.evaluation_prompts, given.evaluation)
    policies = {"sft": policy, "aligned": aligned}
    compared = evaluate_policy(site, policies, reward_models, given.evaluation_prompts, given.evaluation)
    measured = measure_policies(site, policies, given.benchmarks, evaluation.benchmarks)  # MT-Bench, win rates, lm-eval

    return site.finish(
        {
            "held_out": given.held_out,
            "prompts": prompts,
            "policy": policy,
            **reward_models,
            "aligned": aligned,
            "evaluation": compared,
            "curve": curve,
            **({"benchmarks": measured} if measured else {}),
        }
    )
