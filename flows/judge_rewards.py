"""Judge rewards: how often they are right, whether they know, agree, help at best of n, and what else moves them.

python -m flows.judge_rewards configs/judge_rewards.yaml --set store=.rsdpo
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import check_judge_rewards_command

    check_judge_rewards_command()


import json
import sys

import numpy as np
from prefect import flow
from rich.console import Console

from flows.arguments import judge_rewards_parser
from flows.command_line import ends_with_a_message
from flows.config_files import read_section
from flows.prefect_server import check_places, start_server
from flows.printing import rich_table
from flows.run_log import RunLog
from tasks.config.compute import ComputeConfig
from tasks.config.rewards import RewardSource
from tasks.define_reward import find_reward
from tasks.import_model import import_reward_model
from tasks.judges.endpoint import key_of
from tasks.pipeline.site import Site, open_site
from tasks.quality.accuracy import Rewards
from tasks.quality.answers import Answers, PairedAnswers, SampledAnswers, check_first_row, read_answers
from tasks.quality.bias import biases, edit_answers
from tasks.quality.found import Found, quality_on_pairs, quality_on_samples, set_row
from tasks.quality.kept import keep
from tasks.quality.page import quality_page, tables
from tasks.quality.settings import JudgeRewardsConfig
from tasks.rewards.functions import load_function
from tasks.score import score_completions
from tasks.store.artifacts import NOTHING, Artifact, sha256_of
from tasks.store.drafts import Draft, provenance_of
from tasks.store.manifests import read_files
from tasks.store.slices import read_slices, read_sorted

PAGE, FIGURES = "reward_quality.html", "reward_quality.json"
Makers = dict[str, list[Artifact]]
"""Name of a reward -> what makes it: a function, a judge, a reward model, or the members of an ensemble."""


@flow(name="judge-rewards")
def judge_rewards(settings: JudgeRewardsConfig) -> tuple[Artifact, Found]:
    """Score every set with every reward, and say how good each reward is; what was scored before is looked up."""
    sets = {name: read_answers(name, own) for name, own in settings.sets.items()}
    site = open_site(settings.store, ComputeConfig())
    makers = {name: find_makers(site, name, source) for name, source in settings.rewards.items()}
    found = Found(_told(makers), [set_row(name, own) for name, own in sets.items()], [], [], [], [], [], [])
    for name, answers in sets.items():
        rewards = score(site, makers, answers, settings)
        if isinstance(answers, PairedAnswers):
            accuracies, sections, calibrations = quality_on_pairs(name, answers, rewards, settings)
            found.accuracy.extend(accuracies)
            found.sections.extend(sections)
            found.calibration.extend(calibrations)
        elif isinstance(answers, SampledAnswers):
            agreement, curves = quality_on_samples(name, answers, rewards, settings)
            found.agreement.extend(agreement)
            found.best_of.extend(curves)
    if settings.bias.prompts:
        edited = edit_answers(sets[settings.audited], settings.bias.prompts)
        rewards = score(site, makers, edited.answers, settings)
        found.bias.extend(row for name, own in rewards.items() for row in biases(name, edited, own, settings.seed))
    return keep_figures(site, found), found


def check_settings(settings: JudgeRewardsConfig) -> None:
    """Refuse a function that does not load, a judge without its key and a set that is not there, before the work.

    Raises:
        ConfigurationError: Names the set, the function or the variable, and what is wrong.
    """
    for source in settings.rewards.values():
        if source.function is not None:
            load_function(source.called)
        if source.judge is not None:
            key_of(source.judge)
    for name, own in settings.sets.items():
        check_first_row(name, own)


def find_makers(site: Site, name: str, source: RewardSource) -> list[Artifact]:
    """Bring what makes a reward into the store."""
    if source.reward_models:
        return [import_reward_model(site, own, NOTHING) for own in source.reward_models]
    return [find_reward(site, name, source)]


def score(site: Site, makers: Makers, answers: Answers, settings: JudgeRewardsConfig) -> dict[str, Rewards]:
    """Return the rewards of a set's completions by name; of an ensemble, the mean of its members."""
    kept = keep(site.store, answers)
    if site.record is not None:
        for folder in kept.folders:
            site.record.note(folder)

    def column(maker: Artifact) -> Rewards:
        made = score_completions(site, maker, kept.completions, kept.prompts, settings.scoring)
        rows = read_sorted(read_slices(site.store, made))
        ids = zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)
        return dict(zip(ids, rows["reward"].to_pylist(), strict=True))

    found = {name: [column(maker) for maker in own] for name, own in makers.items()}
    return {name: {id_: float(np.mean([each[id_] for each in own])) for id_ in own[0]} for name, own in found.items()}


def keep_figures(site: Site, found: Found) -> Artifact:
    """Commit the figures and the page, under the key of what is in them."""
    page, figures = quality_page(found, site.store.uri), json.dumps(found.as_json(), indent=1).encode()
    digest = sha256_of(figures)
    draft = Draft(site.store, provenance_of("judge_rewards", 1, {"figures": digest, "page": sha256_of(page)}))
    made = draft.commit("reward_quality", {FIGURES: figures, PAGE: page}, digest, rows=len(found.rewards))
    if site.record is not None:
        site.record.note(draft.folder)
    site.finish({"reward_quality": made})
    return made


def main(arguments: list[str] | None = None) -> None:
    """Judge rewards from the command line; exit as `flows.rs_dpo` does where something is wrong."""
    options = judge_rewards_parser().parse_args(arguments)
    with ends_with_a_message():
        settings = read_section(JudgeRewardsConfig, options.config, options.set)
        check_settings(settings)
        check_places()
        with RunLog() as log:
            start_server(log.path)
            made, found = judge_rewards(settings)
        show(made, found, options.json)


def show(made: Artifact, found: Found, as_json: bool) -> None:
    """Print the tables, and where the page is."""
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False)
    for table in tables(found):
        console.print(rich_table(table, table.caption))
    page = next(f"{made.uri}/{entry.path}" for name, entry in read_files(made).items() if name == PAGE)
    console.print(f"The page: {page}", soft_wrap=True, highlight=False)
    if as_json:
        print(json.dumps({"reward_quality": made.uri, "page": page, **found.as_json()}), flush=True)


def _told(makers: Makers) -> list[dict[str, str]]:
    """Return what makes each reward."""
    return [
        {"reward": name, "made_by": ", ".join(f"{each.kind} {each.digest[:12]}" for each in own)}
        for name, own in makers.items()
    ]


if __name__ == "__main__":
    main()
