"""What can be checked about a run's settings before anything is read or loaded."""

import logging
from collections.abc import Collection, Mapping

from prefect.settings import PREFECT_API_URL

from tasks.config.compute import ComputeConfig
from tasks.config.data import DataConfig
from tasks.config.errors import ConfigurationError
from tasks.config.rewards import OwnRewardModel
from tasks.config.sections import PreferenceSource, Section
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.pipeline.configuration import Config
from tasks.pipeline.dispatch import find_pool
from tasks.pipeline.gpus import Need
from tasks.pipeline.progress import log
from tasks.selection.terms import Term


def check_run(config: Config) -> None:
    """Refuse settings that do not fit together.

    Raises:
        ConfigurationError: Names the field and the remedy.
    """
    data, pairs = config.data, config.pairs
    if config.sft.base_model is not None and data.demonstrations is None:
        raise ConfigurationError(
            "data.demonstrations is missing: train_sft needs it; or name a ready policy in sft.ready_model"
        )
    check_rewards(config)
    if data.preferences == "gold" and config.evaluation.gold_reward is None:
        raise ConfigurationError(
            "data.preferences = gold needs evaluation.gold_reward: the function that labels the pairs"
        )
    if pairs.strategy == "annotation" and (data.preferences is None or data.labels_completions):
        raise ConfigurationError(
            "pairs.strategy = annotation needs a file in data.preferences, or `added`: the pairs to train on"
        )
    if data.pilot is not None and pairs.strategy == "annotation":
        raise ConfigurationError(
            f"data.pilot = {data.pilot} cannot be with pairs.strategy = annotation: nothing is sampled, so there "
            "is nothing to predict"
        )
    if data.pilot is not None and pairs.max_pairs is not None:
        raise ConfigurationError(
            f"data.pilot = {data.pilot} cannot be with pairs.max_pairs = {pairs.max_pairs}: which share of its pairs "
            "the whole run keeps is known once all are found; leave pairs.max_pairs away in the pilot"
        )


def check_rewards(config: Config) -> None:
    """Refuse rewards that pairs cannot be selected by.

    Raises:
        ConfigurationError: Names the field and the remedy.
    """
    if not config.reward_names:
        raise ConfigurationError(
            "data.preferences is missing: train_reward_model needs it; or name a ready one in "
            "reward_model.ready_model, or another reward in rewards"
        )
    check_reward_models(config)
    counted = config.combination.counted  # raises where what counts is not said
    _ = config.held_out  # raises where there is nothing to keep the best model by
    if config.pairs.strategy == "pareto":
        check_pareto(counted)


def check_pareto(counted: Mapping[str, Term]) -> None:
    """Refuse rewards of which no pair could be better by each.

    Raises:
        ConfigurationError: There are not several, or a lower one is better.
    """
    if len(counted) < 2:
        raise ConfigurationError(
            f"pairs.strategy = pareto needs several rewards with a weight in pairs.rewards, not {len(counted)}: name "
            "them, or take threshold"
        )
    if low := [name for name, term in counted.items() if term.weight < 0]:
        raise ConfigurationError(
            f"pairs.rewards.{low[0]}.weight = {counted[low[0]].weight:g} must be positive with pairs.strategy = "
            "pareto: chosen beats rejected by each reward before its weight; take another strategy, or let a function "
            "give the negative reward"
        )


def check_reward_models(config: Config) -> None:
    """Refuse reward models that could not be trained on what there is, and preferences that train none.

    Raises:
        ConfigurationError: Names the field and the remedy.
    """
    data = config.data
    for name, source in config.rewards.items():
        nothing = [own for own in source.reward_models if not (own.ready_model or own.preferences or data.preferences)]
        if nothing:
            raise ConfigurationError(
                f"rewards.{name} has a reward model with nothing to be trained on: name preferences or ready_model in "
                "it, or data.preferences"
            )
    trained = [own for own, _ in config.reward_models.values() if own.ready_model is None]
    if data.preferences == "judged" and all(sources_of(own, data) for own in trained):
        raise ConfigurationError(
            "data.preferences = judged pays for pairs that no reward model of this run is trained on: leave it and "
            "data.judge out, or leave out reward_model.ready_model"
        )
    if config.reward_model.held_out and not config.has_section_reward:
        raise ConfigurationError("reward_model.held_out needs data.preferences, of which each model gets a half")
    for name, (own, _) in config.reward_models.items():
        if own.ready_model is None and own.loss == "plackett_luce":
            check_taken_once(name, sources_of(own, data))


def sources_of(own: RewardModelConfig, data: DataConfig) -> tuple[PreferenceSource, ...]:
    """Return the sources of what a reward model is trained on: its own, or else the run's."""
    given = own.preferences if isinstance(own, OwnRewardModel) else None
    return (data if given is None else data.model_copy(update={"preferences": given})).preference_sources


def check_taken_once(name: str, sources: Collection[PreferenceSource]) -> None:
    """Refuse weights that would repeat the pairs of a ranking.

    Raises:
        ConfigurationError: Names the reward and the weights.
    """
    weights = [source.weight for source in sources]
    if any(weight > 1 for weight in weights):
        raise ConfigurationError(
            f"{name} is trained on preferences with weights {weights}, and its loss = plackett_luce takes each ranking "
            "once: lower them to 1 or less, or take k_comparisons"
        )


def log_unread_settings(config: Config) -> None:
    """Name the settings that another one leaves without effect, a line for each that does."""
    data, sft, reward_model, pairs = config.data, config.sft, config.reward_model, config.pairs
    models: dict[str, SftConfig | RewardModelConfig] = {"sft": sft, "reward_model": reward_model, **own_models(config)}
    for place, section in models.items():
        if section.ready_model is not None:
            training = section.model_dump(exclude_defaults=True).keys() - {"ready_model"}
            _log_unread(f"{place}.ready_model, which is used as it is", place, training)
    given = data.model_dump(exclude_none=True, exclude_defaults=True).keys()
    if sft.ready_model is not None:
        _log_unread("sft.ready_model, which is used as it is", "data", given & {"demonstrations"})
    others = any(own.ready_model is None and own.preferences is None for own in own_models(config).values())
    if reward_model.ready_model is not None and pairs.strategy != "annotation" and not others:
        _log_unread("reward_model.ready_model, which is used as it is", "data", given & {"preferences"})
    if data.preferences in (None, "gold"):
        _log_unread(f"data.preferences = {data.preferences}, which has no annotators", "data", given & {"consensus"})
    if data.evaluation_prompts is not None:
        _log_unread("data.evaluation_prompts, all of which are held out", "data", given & {"evaluation_fraction"})
    changed = Section.key_fields(pairs).keys() - pairs.key_fields().keys()
    _log_unread(f"strategy = {pairs.strategy}, max_pairs, max_pairs_per_prompt and cap as they are", "pairs", changed)


def own_models(config: Config) -> dict[str, OwnRewardModel]:
    """Return the reward models of the section `rewards` by their places there."""
    found: dict[str, OwnRewardModel] = {}
    for name, source in config.rewards.items():
        if source.reward_model is not None:
            found[f"rewards.{name}.reward_model"] = source.reward_model
        found |= {f"rewards.{name}.ensemble[{number}]": own for number, own in enumerate(source.ensemble)}
    return found


def _log_unread(reason: str, section: str, fields: Collection[str]) -> None:
    if fields:
        names = ", ".join(f"{section}.{name}" for name in sorted(fields))
        log(f"settings without effect because of {reason}: {names}", logging.WARNING)


def check_compute(compute: ComputeConfig, needs: Mapping[str, Need]) -> None:
    """Refuse deployments that Prefect's server does not have, and stages for which their workers have too few GPUs.

    Args:
        compute: Which deployment computes which stage.
        needs: GPUs of stages; a stage that is not named needs one.

    Raises:
        ConfigurationError: Names the stage and the remedy.
    """
    for stage, name in compute.deployments().items():
        server = PREFECT_API_URL.value()
        if server is None:
            raise ConfigurationError(
                f"compute.{stage} = {name!r} needs a Prefect server: set PREFECT_API_URL, or use `inline`"
            )
        pool, need = find_pool(name), needs.get(stage)
        if pool is None:
            raise ConfigurationError(
                f"compute.{stage} = {name!r}: Prefect's server at {server} has no such deployment: deploy prefect.yaml "
                "there, or use `inline`"
            )
        if need is not None and pool.gpus is not None and need.gpus > pool.gpus:
            raise ConfigurationError(
                f"{need.setting} = {need.gpus}: compute.{stage} = {name!r} runs on the pool {pool.name}, whose workers "
                f"have {pool.gpus} GPUs each, so it would wait for ever: lower it, or give them more "
                f"(python -m infra.apply --gpus N --gpus-per-worker {need.gpus}, and start the workers anew)"
            )
