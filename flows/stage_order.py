"""The stages that a configuration leads to, in the order of flows/rs_dpo.py or rloo.py: what a run still waits for."""

from tasks.config.rewards import COMBINED, OwnRewardModel
from tasks.pipeline.configuration import Config, RlooRun


def stage_order(config: Config) -> tuple[str, ...]:
    """Return the names of the stages that a run with this configuration looks at.

    `load_evaluation_prompts` is among them wherever there is a limit, which the held-out prompts may not reach.
    """
    data, online = config.data, isinstance(config, RlooRun)
    models = [own for own, _ in config.reward_models.values()]
    called = [source for source in config.rewards.values() if not source.reward_models]
    own_data = [own for own in models if isinstance(own, OwnRewardModel) and own.preferences]
    annotated = config.pairs.strategy == "annotation"
    benchmarks = config.evaluation.benchmarks is not None and data.pilot is None
    stages = [
        *[("define_reward" if source.judge is None else "define_judge", True) for source in called],
        ("store_model", True),
        *[("store_model", own.ready_model is not None or own.base_model is not None) for own in models],
        ("load_held_out", True),
        ("load_evaluation_prompts", data.max_evaluation_prompts is not None or data.pilot is not None),
        ("load_prompts", True),
        ("draw_pilot", data.pilot is not None),
        ("load_demonstrations", data.demonstrations is not None),
        ("load_preferences", data.preferences is not None and not data.labels_completions),
        *[("load_preferences", True) for _ in own_data],
        ("load_annotations", annotated),
        ("load_benchmarks", benchmarks),
        ("train_sft", config.sft.ready_model is None),
        ("sample_completions", data.labels_completions if online else not annotated),
        ("label_preferences", data.preferences == "gold"),
        ("judge_preferences", data.preferences == "judged"),
        *[("train_reward_model", own.ready_model is None) for own in models],
        *[("score_completions", not online) for _ in config.selecting],
        ("combine_rewards", not online and config.proxy == COMBINED),
        ("build_pairs", not online),
        ("train_dpo", not online),
        ("train_rloo", online),
        ("evaluate_policy", config.alignment.snapshots > 0),
        ("choose_snapshot", not online and config.dpo.keep == "best"),
        ("evaluate_policy", True),
        ("measure_policies", benchmarks),
    ]
    return tuple(name for name, is_run in stages if is_run)
