"""Measure policies by benchmarks: MT-Bench and win rates by a judge, refusals, and tasks of lm-eval.

python -m flows.judge_policies configs/benchmarks.yaml --dry-run
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import check_judge_policies_command

    check_judge_policies_command()


import json
import math
import sys

import pyarrow as pa
from prefect import flow
from rich.console import Console

from flows.arguments import judge_policies_parser
from flows.command_line import ends_with_a_message
from flows.config_files import read_section
from flows.prefect_server import check_places, start_server
from flows.printing import rich_table
from flows.run_log import RunLog
from tasks.benchmarks.figures import Answered, Figure, Outcome
from tasks.benchmarks.measuring import Measuring, questions, read_material
from tasks.benchmarks.page import benchmark_tables, benchmarks_page
from tasks.benchmarks.settings import OF_A_RUN, BenchmarksConfig
from tasks.data.records import prompt_id
from tasks.import_model import import_model
from tasks.judges.endpoint import key_of
from tasks.models.locate import locate_model
from tasks.pipeline.site import Site
from tasks.publishing.facts import choose_run
from tasks.store.artifacts import Artifact, DamagedArtifactError, sha256_of
from tasks.store.drafts import Draft, provenance_of
from tasks.store.folders import Store, open_store
from tasks.store.manifests import read_files
from tasks.store.parquet import table_bytes
from tasks.store.runs import RunRecord
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest

PAGE = "benchmarks.html"


@flow(name="judge_policies")
def judge_policies(config: BenchmarksConfig) -> tuple[dict[str, Artifact], dict[str, Outcome]]:
    """Measure the policies; return the table of figures and the one of answers, and what each benchmark comes to."""
    store = open_store(config.store)
    record = RunRecord.begin(store)
    site = Site(store, record=record)
    policies = {} if config.run is None else run_policies(store, config.run)
    policies |= {name: import_model(site, source, "policy") for name, source in config.policies.items()}
    measuring = Measuring(store, config, policies)
    outcomes = measuring.outcomes()
    decides = {"settings": config, "policies": policies}
    judge = "" if config.judge is None else f"{config.judge.model} {config.judge.version}".strip()
    made = {"benchmarks": keep_figures(site, outcomes, decides, benchmarks_page(outcomes, store.uri, judge))}
    if any(outcome.answers for outcome in outcomes.values()):
        made["answers"] = keep_answers(site, outcomes, decides, measuring.parts())
    record.finish(made)
    return made, outcomes


def run_policies(store: Store, run: str) -> dict[str, Artifact]:
    """Return the policies of a run.

    Raises:
        ConfigurationError: There is no such run.
        DamagedArtifactError: The store no longer has one of them.
    """
    artifacts, found = choose_run(store, run).artifacts, {}
    for name, made in OF_A_RUN.items():
        if (policy := store.find(artifacts[made])) is None:
            raise DamagedArtifactError(f"{store.uri}/{artifacts[made]} is missing or damaged: set another `run`")
        found[name] = policy
    return found


def keep_figures(site: Site, outcomes: dict[str, Outcome], decides: dict[str, object], page: bytes) -> Artifact:
    """Commit the figures with their page, under the key of what they are and of what `decides` them."""
    rows = [_figure_row(each) for outcome in outcomes.values() for each in outcome.figures]
    table = pa.Table.from_pylist(rows, SCHEMAS["benchmarks"])
    digest = format_digest(rows_digest(table))
    draft = _noted(site, "judge_policies", {**decides, "table": digest, "page": sha256_of(page)})
    files = {"benchmarks.parquet": table_bytes(table, "benchmarks"), PAGE: page}
    return draft.commit("benchmarks", files, digest, rows=table.num_rows)


def keep_answers(
    site: Site, outcomes: dict[str, Outcome], decides: dict[str, object], parts: dict[str, str]
) -> Artifact:
    """Commit the answers with their values, as an evaluation; `parts` are of the completions, which `prune` spares."""
    rows = [_answer_row(each) for outcome in outcomes.values() for each in outcome.answers]
    table = pa.Table.from_pylist(rows, SCHEMAS["evaluation"])
    digest = format_digest(rows_digest(table))
    draft = _noted(site, "judge_policies_answers", {**decides, "table": digest})
    files = {"answers.parquet": table_bytes(table, "evaluation")}
    return draft.commit("evaluation", files, digest, rows=table.num_rows, keeps=parts)


def _noted(site: Site, stage: str, decides: dict[str, object]) -> Draft:
    """Return where something is kept, once the record of this run names it."""
    draft = Draft(site.store, provenance_of(stage, 1, decides))
    if site.record is not None:
        site.record.note(draft.folder)
    return draft


def _figure_row(each: Figure) -> dict[str, object]:
    return {name: None if _is_nan(value) else value for name, value in each._asdict().items()}


def _answer_row(each: Answered) -> dict[str, object]:
    return {
        "policy": each.policy,
        "prompt_id": prompt_id(each.messages),
        "completion_id": 0,
        "completion": each.completion,
        "reward_name": each.measure,
        "reward": None if _is_nan(each.value) else each.value,
    }


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def main(arguments: list[str] | None = None) -> None:
    """Measure from the command line; exit as `flows.rs_dpo` does where that cannot be done."""
    options = judge_policies_parser().parse_args(arguments)
    with ends_with_a_message():
        config = read_section(BenchmarksConfig, options.config, options.set)
        material = read_material(config)
        for source in config.policies.values():
            locate_model(source)
        if config.run is not None:
            run_policies(open_store(config.store), config.run)
        if options.dry_run:
            show_plan(questions(config, material), options.json)
            return
        if config.judge is not None:
            key_of(config.judge)
        check_places()
        with RunLog() as run_log:
            start_server(run_log.path)
            made, outcomes = judge_policies(config)
        show(made, outcomes, options.json)


def show_plan(verdicts: dict[str, int], as_json: bool) -> None:
    """Print how many verdicts would be asked for, at most: those that the store has are not asked again."""
    if as_json:
        print(json.dumps({"verdicts": verdicts}))
        return
    for name, count in verdicts.items():
        print(f"{name}: at most {count:,} verdicts of the judge")
    if not verdicts:
        print("no judge is asked")


def show(made: dict[str, Artifact], outcomes: dict[str, Outcome], as_json: bool) -> None:
    """Print each benchmark's figures, what has to be known of them, and where the page is."""
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False)
    for name, table in benchmark_tables(outcomes).items():
        console.print(rich_table(table))
        for note in outcomes[name].notes:
            console.print(note, soft_wrap=True, highlight=False)
    page = next(
        f"{made['benchmarks'].uri}/{entry.path}"
        for name, entry in read_files(made["benchmarks"]).items()
        if name == PAGE
    )
    console.print(f"The page: {page}", soft_wrap=True, highlight=False)
    if as_json:
        figures = [_figure_row(each) for outcome in outcomes.values() for each in outcome.figures]
        uris = {name: artifact.uri for name, artifact in made.items()}
        print(json.dumps({"figures": figures, "page": page, "artifacts": uris}), flush=True)


if __name__ == "__main__":
    main()
