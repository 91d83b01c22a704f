"""Measure policies by benchmarks: MT-Bench and win rates by a judge, refusals, and tasks of lm-eval.

python -m flows.judge_policies configs/benchmarks.yaml --dry-run
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import check_judge_policies_command

    check_judge_policies_command()


import json
import sys
from typing import Any

from prefect import flow
from rich.console import Console

from flows.arguments import judge_policies_parser
from flows.command_line import ends_with_a_message
from flows.config_files import read_section
from flows.prefect_server import check_places, start_server
from flows.printing import rich_table
from flows.run_log import RunLog
from tasks.benchmarks.figures import Outcome
from tasks.benchmarks.material import read_material, verdicts
from tasks.benchmarks.outcomes import figures_table, read_outcomes
from tasks.config.benchmarks import OF_A_RUN, BenchmarksConfig
from tasks.import_model import import_model
from tasks.judges.endpoint import key_of
from tasks.measure_policies import find_benchmarks, measure_policies
from tasks.models.locate import locate_model
from tasks.pipeline.site import Site
from tasks.publishing.facts import choose_run
from tasks.report.benchmarked import benchmark_tables
from tasks.report.benchmarks_page import benchmarks_page
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.folders import Store, open_store
from tasks.store.runs import RUNS, RunRecord

PAGE = "benchmarks.html"


@flow(name="judge-policies")
def judge_policies(config: BenchmarksConfig) -> tuple[Artifact, str]:
    """Measure the policies; return what the benchmarks came to, and where the page is."""
    store = open_store(config.store)
    record = RunRecord.begin(store)
    site = Site(store, record=record)
    policies = {} if config.run is None else run_policies(store, config.run)
    policies |= {name: import_model(site, source, "policy") for name, source in config.policies.items()}
    material = find_benchmarks(site, config.benchmarks, policies)
    measured = measure_policies(site, policies, material, config.benchmarks)
    page = benchmarks_page(read_outcomes(measured), store.uri, measured.stats["judge"])
    record.finish({"benchmarks": measured})
    return measured, store.write_beside(f"{RUNS}/{record.run.id}", PAGE, page)


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
            show_plan(verdicts(config, material, len(config.names())), options.json)
            return
        if config.judge is not None:
            key_of(config.judge)
        check_places()
        with RunLog() as run_log:
            start_server(run_log.path)
            measured, page = judge_policies(config)
        show(measured, page, options.json)


def show_plan(asked: dict[str, int], as_json: bool) -> None:
    """Print how many verdicts would be asked for, at most: those that the store has are not asked again."""
    if as_json:
        print(json.dumps({"verdicts": asked}))
        return
    for name, count in asked.items():
        print(f"{name}: at most {count:,} verdicts of the judge")
    if not asked:
        print("no judge is asked")


def show(measured: Artifact, page: str, as_json: bool) -> None:
    """Print each benchmark's figures, what has to be known of them, and where the page is."""
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False)
    outcomes: dict[str, Outcome] = read_outcomes(measured)
    for name, table in benchmark_tables(outcomes).items():
        console.print(rich_table(table))
        for note in outcomes[name].notes:
            console.print(note, soft_wrap=True, highlight=False)
    console.print(f"The page: {page}", soft_wrap=True, highlight=False)
    if as_json:
        figures: list[dict[str, Any]] = figures_table(outcomes).to_pylist()
        print(json.dumps({"figures": figures, "page": page, "benchmarks": measured.uri}), flush=True)


if __name__ == "__main__":
    main()
