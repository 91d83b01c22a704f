"""What a run works on: its models and its data, checked and brought into the store before anything is computed."""

from collections.abc import Mapping
from typing import NamedTuple

from tasks.config.judges import JudgeConfig
from tasks.config.rewards import SECTION, OwnRewardModel
from tasks.config.settings import RewardModelConfig
from tasks.config.training import DpoConfig
from tasks.define_reward import find_reward
from tasks.dpo import check_prompts
from tasks.evaluate import evaluation_settings
from tasks.evaluation.drawn import EvaluationSettings
from tasks.import_model import import_policy, import_reward_model
from tasks.judges.endpoint import key_of
from tasks.measure_policies import find_benchmarks
from tasks.pipeline.checks import check_compute, check_run, log_unread_settings
from tasks.pipeline.configuration import Config, RlooRun
from tasks.pipeline.gpus import gpus_needed
from tasks.pipeline.remembered import unless_passed
from tasks.pipeline.site import Site
from tasks.planning.pilot import pilot_dpo, pilot_evaluation
from tasks.preferences import load_annotations
from tasks.prompts import draw_pilot, find_data, find_sources, load_evaluation_prompts, load_held_out, load_prompts
from tasks.reward_model import check_preferences
from tasks.rewards.functions import GoldReward, find_gold
from tasks.rloo import check_prompts_fit
from tasks.sft import check_demonstrations
from tasks.store.artifacts import NOTHING, Artifact
from tasks.training.checks import check_trainer_arguments, check_trainings
from tasks.training_data import load_demonstrations, load_preferences


class RewardTraining(NamedTuple):
    """What a reward model is made of."""

    base: Artifact
    """What its training begins with, or the ready reward model; `NOTHING`: the policy."""
    preferences: Artifact
    """Pairs that it has for itself; `NOTHING`: those of the run."""
    config: RewardModelConfig
    half: int
    """Half of the preferences, 1 or 2; 0: all."""


class Inputs(NamedTuple):
    """Models and tables of a run; `NOTHING` for what its configuration leaves out."""

    base_model: Artifact
    """What `train_sft` begins with, or the ready policy."""
    reward_models: dict[str, RewardTraining]
    """The reward models by name."""
    called: dict[str, Artifact]
    """The rewards that are no models, by name."""
    held_out: Artifact
    """Prompts that nothing is trained on."""
    evaluation_prompts: Artifact
    """The held-out prompts that the policies are compared on."""
    prompts: Artifact
    demonstrations: Artifact
    preferences: Artifact
    annotated: Artifact
    """The data set's own pairs laid out as completions, where they are what is trained on."""
    labels: GoldReward | JudgeConfig | None
    """What labels pairs of the policy's own completions, where these are the preferences."""
    dpo: DpoConfig
    """Settings of DPO; in a pilot, of its first steps."""
    evaluation: EvaluationSettings
    """Settings of the comparison."""
    benchmarks: Artifact
    """What benchmarks ask; `NOTHING` in a pilot, whose policy is hardly trained."""


def check_settings(config: Config) -> None:
    """Refuse settings that do not fit together, and workers that are not there or are too small.

    Raises:
        ConfigurationError: Names the setting and the remedy.
    """
    check_run(config)
    measured = config.evaluation.benchmarks
    for judge in (config.data.judge, None if measured is None else measured.judge):
        if judge is not None:
            key_of(judge)
    own = [settings for settings, _ in config.reward_models.values()]
    check_trainer_arguments(config.sft, *own, config.alignment)
    log_unread_settings(config)
    if config.compute.deployments():
        from flows.stages import STAGES  # makes a flow of each

        check_compute(config.compute, gpus_needed(STAGES.values(), config.sections()))


def load_inputs(site: Site, config: Config) -> Inputs:
    """Bring in the models and the data, and refuse what could not be sampled from or trained on.

    Raises:
        ConfigurationError: Names what is missing or wrong, and the remedy.
    """
    data, files, max_new_tokens = config.data, find_data(site.store, config.data), config.sampling.max_new_tokens
    gold = find_gold(config.evaluation.gold_reward)
    called = {name: find_reward(site, name, own) for name, own in config.rewards.items() if not own.reward_models}
    base_model = import_policy(site, config.sft)
    bases = {name: import_reward_model(site, own, base_model) for name, (own, _) in config.reward_models.items()}
    reward_base = bases.get(SECTION, NOTHING)
    trainings = [(own, bases[name] or base_model) for name, (own, _) in config.reward_models.items()]
    check_trainings(config.compute, (config.sft, base_model), *trainings, (config.alignment, base_model))

    evaluation_source = files.evaluation_prompts or files.prompts
    others = other_models(bases) or None
    held_out = load_held_out(site, evaluation_source, base_model, reward_base, data, max_new_tokens, others)
    evaluation_prompts = load_evaluation_prompts(site, evaluation_source, held_out, pilot_evaluation(data))
    every = load_prompts(site, files.prompts, held_out, base_model, reward_base, data, max_new_tokens, others)
    prompts = draw_pilot(site, every, data.pilot)
    demonstrations = load_demonstrations(site, files.demonstrations, held_out, base_model, data)
    preferences = load_preferences(site, files.preferences, held_out, reward_base or base_model, data)
    own = {name: load_own_preferences(site, config, name, held_out, base or base_model) for name, base in bases.items()}
    reward_models = {
        name: RewardTraining(bases[name], own[name], as_section(settings), half)
        for name, (settings, half) in config.reward_models.items()
    }
    annotated = load_annotations(site, base_model, prompts, preferences, config.pairs.strategy == "annotation")
    measured = config.evaluation.benchmarks if data.pilot is None else None
    given = Inputs(
        base_model=base_model,
        reward_models=reward_models,
        called=called,
        held_out=held_out,
        evaluation_prompts=evaluation_prompts,
        prompts=prompts,
        demonstrations=demonstrations,
        preferences=preferences,
        annotated=annotated,
        labels=data.judge or (gold if data.preferences == "gold" else None),
        dpo=pilot_dpo(config.dpo, data),
        evaluation=evaluation_settings(config.sampling, config.scoring, config.evaluation, gold).model_copy(
            update={"optimised": tuple(dict.fromkeys([config.proxy, *config.selecting]))}
        ),
        benchmarks=find_benchmarks(site, measured, {"sft": base_model}, data.system_prompt),
    )
    _check_rows(given, config)
    return given


def other_models(bases: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Return the different models that rewards begin with, beside the policy and the section's: name -> model.

    What they cannot read is found in the prompts, and not once everything has been sampled.
    """
    seen, found = {"", bases.get(SECTION, NOTHING).digest}, dict[str, Artifact]()
    for name, model in bases.items():
        if model.digest not in seen:
            seen.add(model.digest)
            found[name] = model
    return found


def as_section(settings: RewardModelConfig) -> RewardModelConfig:
    """Return the settings of a training alone, as stages take them, wherever they stood."""
    return RewardModelConfig.model_validate(settings.model_dump(exclude={"preferences"}))


def load_own_preferences(site: Site, config: Config, name: str, held_out: Artifact, base: Artifact) -> Artifact:
    """Return the preferences that a reward of the section `rewards` has for itself; `NOTHING` where it has none."""
    own, _ = config.reward_models[name]
    if not isinstance(own, OwnRewardModel) or own.preferences is None:
        return NOTHING
    data = config.data.model_copy(update={"preferences": own.preferences})
    return load_preferences(site, find_sources(data.preference_sources), held_out, base, data)


def _check_rows(given: Inputs, config: Config) -> None:
    """Refuse tables without a row that could be trained on."""
    unless_passed(check_demonstrations, given.base_model, given.demonstrations, config.sft)
    for own in given.reward_models.values():
        unless_passed(check_preferences, own.base or given.base_model, own.preferences or given.preferences, own.config)
    if isinstance(config, RlooRun):
        check_prompts_fit(given.base_model, given.prompts, config.rloo, config.rollouts)
    else:
        unless_passed(check_prompts, given.base_model, given.prompts, config.dpo)
