"""The stages that a configuration leads to, in the order of flows/rs_dpo.py or rloo.py: what a run still waits for."""

from tasks.pipeline.configuration import Config, RlooRun


def stage_order(config: Config) -> tuple[str, ...]:
    """Return the names of the stages that a run with this configuration looks at.

    `load_evaluation_prompts` is among them wherever there is a limit, which the held-out prompts may not reach.
    """
    data, reward_model, online = config.data, config.reward_model, isinstance(config, RlooRun)
    annotated = config.pairs.strategy == "annotation"
    stages = [
        ("store_model", True),
        ("store_model", reward_model.ready_model is not None or reward_model.base_model is not None),
        ("load_held_out", True),
        ("load_evaluation_prompts", data.max_evaluation_prompts is not None or data.pilot is not None),
        ("load_prompts", True),
        ("draw_pilot", data.pilot is not None),
        ("load_demonstrations", data.demonstrations is not None),
        ("load_preferences", data.preferences not in (None, "gold")),
        ("load_annotations", annotated),
        ("train_sft", config.sft.ready_model is None),
        ("sample_completions", data.preferences == "gold" if online else not annotated),
        ("label_preferences", data.preferences == "gold"),
        ("train_reward_model", reward_model.ready_model is None),
        ("train_reward_model", reward_model.held_out),
        ("score_completions", not online),
        ("build_pairs", not online),
        ("train_dpo", not online),
        ("train_rloo", online),
        ("evaluate_policy", True),
        ("evaluate_policy", config.alignment.snapshots > 0),
    ]
    return tuple(name for name, is_run in stages if is_run)
