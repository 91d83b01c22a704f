"""Rounds of RS-DPO: each policy samples, and what is selected from its own completions trains the next one.

python -m flows.rounds configs/rounds_facts.yaml --set rounds=4
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import check_rounds_command

    check_rounds_command()


import json
import sys
from typing import Any

from prefect import flow
from rich.console import Console

from flows.arguments import rounds_parser
from flows.command_line import ends_with_a_message, foresee
from flows.config_files import load_values, read_section
from flows.inputs import Inputs, check_settings, load_inputs
from flows.labels import label_or_load
from flows.prefect_server import check_places, start_server
from flows.printing import rich_table
from flows.rs_dpo import rs_dpo
from flows.run_log import RunLog
from flows.stage_order import stage_order
from tasks.combine_rewards import combine_rewards, of_several
from tasks.config.errors import ConfigurationError
from tasks.config.rewards import artifact_name
from tasks.dpo import train_dpo
from tasks.evaluate import evaluate_policy
from tasks.evaluation.named_rewards import ranked_by
from tasks.measure_policies import measure_policies
from tasks.monitors.judging import MonitorError
from tasks.pairs import build_pairs
from tasks.pipeline.configuration import Config
from tasks.pipeline.progress import log
from tasks.pipeline.site import Site, open_site
from tasks.prompts import draw_share
from tasks.publishing.card import write_card
from tasks.report.watching import watched
from tasks.reward_model import train_reward_model
from tasks.round_data import Found, join_completions, join_pairs, keep_preferences
from tasks.rounds.outcome import Round, best_round, read_round, why_ended
from tasks.rounds.page import rounds_page, rounds_table
from tasks.rounds.settings import RoundsConfig
from tasks.sample import sample_completions
from tasks.score import score_completions
from tasks.sft import train_sft
from tasks.store.artifacts import Artifact
from tasks.store.drafts import plain
from tasks.store.folders import open_store

SEEDED = ("sampling.seed", "pairs.seed", "dpo.seed", "evaluation.seed")
"""What each round moves by one."""


@flow(name="rounds")
def rounds(settings: RoundsConfig) -> tuple[list[Round], str]:
    """Run round after round until none is worth it; return them, and why they ended.

    Raises:
        MonitorError: A monitor of level `fail` stops the first round. It ends the rounds where it stops a later one.
    """
    done: list[Round] = []
    ended: str | None = None
    while ended is None:
        number = len(done) + 1
        try:
            done.append(one_round(settings, round_config(settings, number), done))
        except MonitorError as error:
            if not done:
                raise
            ended = f"round {number} does not count: {error}"
        else:
            log(f"round {number}: gain {done[-1].gain:+.3f} at {done[-1].kl:.2f} nats")
            ended = why_ended(done, settings)
    log(f"the rounds end: {ended}")
    return done, ended


def one_round(settings: RoundsConfig, config: Config, done: list[Round]) -> Round:
    """Return the next round, a run with a record and a report of its own."""
    number = len(done) + 1
    site = watched(open_site(config.store, config.compute, config, stage_order(config)), config)
    given = load_inputs(site, config)
    sft = train_sft(site, given.base_model, given.demonstrations, config.sft)
    policy = done[-1].policy if done else sft  # policy_t
    own = (number, settings.rounds) if settings.prompts == "share" else None
    prompts = draw_share(site, given.prompts, own)
    completions = sample_completions(site, policy, prompts, config.sampling)
    made = {"held_out": given.held_out, "prompts": prompts, "policy": policy, "completions": completions}
    preferences = preferences_of(site, settings, given, made, done)
    reward_models = {
        name: train_reward_model(site, own.base or sft, own.preferences or preferences, own.config, own.half)
        for name, own in given.reward_models.items()
    }
    every = reward_models | given.called
    scored = {
        name: score_completions(site, every[name], completions, prompts, config.scoring) for name in config.selecting
    }
    combined = combine_rewards(site, scored, completions, config.combination)
    selected = build_pairs(site, combined, completions, config.pairs)
    reference = sft if settings.reference == "fixed" else policy
    earlier = [each.made for each in done if settings.keep_pairs]
    pairs, sampled, asked = join_rounds(site, config, given.prompts, [*earlier, made | {"pairs": selected}])
    aligned = train_dpo(site, policy, reference, pairs, sampled, asked, given.dpo)  # policy_{t+1}
    policies, judged_by = {"sft": sft, "aligned": aligned}, every | of_several(combined)
    compared = evaluate_policy(site, policies, judged_by, given.evaluation_prompts, given.evaluation)
    measured = measure_policies(site, policies, given.benchmarks, config.evaluation.benchmarks)
    made |= {artifact_name(name): reward for name, reward in every.items()}
    made |= {"rewards": combined, "pairs": selected, "aligned": aligned, "evaluation": compared}
    made |= {"benchmarks": measured} if measured else {}
    site.finish(made)
    write_card(site)
    by = ranked_by(settings.reward, config)
    return read_round(number, made | {"preferences": preferences}, pairs.rows, by)


def preferences_of(
    site: Site, settings: RoundsConfig, given: Inputs, made: dict[str, Artifact], done: list[Round]
) -> Artifact:
    """Return what a round's reward model is trained on: the same in every round, or what there is now."""
    if settings.reward_model == "fixed":
        return done[0].made["preferences"] if done else given.preferences
    if not given.preferences:
        return label_or_load(site, given, made["completions"], made["prompts"])
    found = Found(preferences=given.preferences)
    kept = keep_preferences(site, made["completions"], given.held_out, history_of(settings), found)
    if kept.digest != given.preferences.digest:
        log(
            f"round {len(done) + 1} was begun before and keeps its {kept.rows} preferences; those that there are now, "
            f"{given.preferences.rows}, count from the first round that was not"
        )
    return kept


def join_rounds(
    site: Site, config: Config, every: Artifact, made: list[dict[str, Artifact]]
) -> tuple[Artifact, Artifact, Artifact]:
    """Return the pairs, the completions and the prompts of some rounds, for one training.

    Args:
        site: Where the rounds run.
        config: That of the last one.
        every: The prompts of all rounds.
        made: What each of them has made.
    """
    prompts, k = every if len(made) > 1 else made[0]["prompts"], config.sampling.k
    pairs = join_pairs(site, [each["pairs"] for each in made], prompts, k)
    return pairs, join_completions(site, [each["completions"] for each in made], k), prompts


def history_of(settings: RoundsConfig) -> dict[str, Any]:
    """Return what rounds are configured by, but for their number and their end: what a longer loop shares."""
    base = load_values(settings.base, settings.set)
    sections = base.key_fields(base.sections().keys() - {"compute", "monitors", "store"})
    own = settings.model_dump(include={"prompts", "reference", "reward_model", "keep_pairs"})
    return {**own, **sections, "preferences": plain(base.data.preferences)}


def round_config(settings: RoundsConfig, number: int) -> Config:
    """Return the configuration of a round: the base, with seeds that no other round has.

    Raises:
        ConfigurationError: Something in it does not go with rounds.
    """
    base = load_values(settings.base, settings.set)
    check_settings(base)
    if base.pairs.strategy == "annotation" or base.data.pilot is not None:
        raise ConfigurationError(
            "rounds sample from each policy anew: leave out pairs.strategy = annotation and data.pilot"
        )
    if base.dpo.keep == "best":
        raise ConfigurationError(
            "dpo.keep = best does not fit: a round goes on from the end of the one before, and the best round is named "
            "at the end; set it to last, and patience or max_kl"
        )
    if settings.reward_model == "fixed" and base.data.labels_completions:
        raise ConfigurationError(
            f"reward_model = fixed and data.preferences = {base.data.preferences} do not fit: each round is labelled "
            "anew; set reward_model = refreshed, or name preferences or reward_model.ready_model"
        )
    if settings.reward_model == "refreshed" and base.reward_model.ready_model is not None:
        raise ConfigurationError(
            "reward_model = refreshed trains reward models: leave reward_model.ready_model out, or set fixed"
        )
    seeds = {}
    for name in SEEDED:
        section, _, field = name.partition(".")
        seeds[name] = getattr(getattr(base, section), field) + number - 1
    return load_values(settings.base, {**settings.set, **seeds})


def main(arguments: list[str] | None = None) -> None:
    """Run rounds from the command line; exit as `flows.rs_dpo` does where they cannot run."""
    options = rounds_parser().parse_args(arguments)
    with ends_with_a_message():
        settings = read_section(RoundsConfig, options.config, options.set)
        first = round_config(settings, 1)
        ranked_by(settings.reward, first)
        check_places()
        foresee(rs_dpo, first.sections())  # what a round reads is missing, wrong or too long for its models
        with RunLog() as log_:
            start_server(log_.path)
            done, ended = rounds(settings)
        show(done, ended, settings, options.json)


def show(done: list[Round], ended: str, settings: RoundsConfig, as_json: bool) -> None:
    """Write the page of the rounds; print them, which is the best, and where its model and the page are."""
    best, store = best_round(done, settings), open_store(round_config(settings, 1).store)
    kept = f"the best is round {best.number}: {best.policy.uri}" if best else "none is within max_kl"
    summary = f"The rounds ended: {ended}. Of {len(done)} rounds {kept}"
    page = store.write_beside("rounds", f"{done[-1].policy.digest[:16]}.html", rounds_page(done, store.uri, summary))
    console, table = Console(width=None if sys.stdout.isatty() else 140, markup=False), rounds_table(done)
    console.print(rich_table(table))
    for line in (f"The rounds ended: {ended}.", f"Of {len(done)} rounds {kept}", f"The page: {page}"):
        console.print(line, soft_wrap=True, highlight=False)
    if as_json:
        told = [each._asdict() | {"policy": each.policy.uri, "gain": each.gain, "made": _uris(each)} for each in done]
        print(json.dumps({"rounds": told, "best": best.number if best else None, "ended": ended, "page": page}))


def _uris(round_: Round) -> dict[str, str]:
    return {name: artifact.uri for name, artifact in round_.made.items()}


if __name__ == "__main__":
    main()
