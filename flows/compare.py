"""Compare several ways to align one policy: arms, each under several seeds, at equal KL and at equal numbers of pairs.

python -m flows.compare configs/compare_facts.yaml --set seeds=[0,1,2] --dry-run
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import check_compare_command

    check_compare_command()


import json
import sys
from typing import Any

from prefect import flow
from rich.console import Console

from flows.arguments import compare_parser
from flows.arm_runs import ended_runs, flow_of
from flows.command_line import ends_with_a_message, foresee
from flows.config_files import load_values, read_section
from flows.prefect_server import check_places, start_server
from flows.printing import rich_table
from flows.run_log import RunLog
from tasks.comparison.arms import ComparisonConfig, configurations, expand, naming
from tasks.comparison.benchmarked import benchmarks_table
from tasks.comparison.outcome import Comparison, Verdict, arms_table, gather, verdicts
from tasks.comparison.page import comparison_page
from tasks.comparison.results import Result, models_table, read_result
from tasks.comparison.sweeps import Sweep, sweeps, swept_settings
from tasks.comparison.weakened import weakened_table
from tasks.config.errors import ConfigurationError
from tasks.evaluation.named_rewards import ranked_by
from tasks.pipeline.configuration import Config
from tasks.pipeline.progress import Progress, warn
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import Draft, provenance_of
from tasks.store.folders import open_store
from tasks.store.manifests import read_files
from tasks.store.parquet import table_bytes
from tasks.store.runs import RunRecord

PAGE = "comparison.html"
Runs = dict[tuple[str, int], Config]
Parts = dict[str, tuple[Comparison, list[Verdict]]]


@flow(name="compare")
def compare(comparison: ComparisonConfig) -> tuple[Artifact, Parts]:
    """Run every arm under every seed, and say which are better; what two runs share is computed once."""
    arms = expand(comparison)
    runs = configurations(comparison, arms, load_values)
    swept = sweeps(swept_settings(comparison.arms), {arm: config for (arm, _), config in runs.items()})
    results, failed = run_all(runs, comparison.reward, comparison.at_once)
    parts = {"": judged(results, failed, comparison, swept)}
    least = min((result.pairs for result in results if result.pairs), default=0)
    if comparison.size_matched and least:
        matched = comparison.model_copy(update={"set": {**comparison.set, "pairs.max_pairs": least}})
        cut = {key: own for key, own in configurations(matched, arms, load_values).items() if type(own) is Config}
        again, lost = run_all(cut, comparison.reward, comparison.at_once)
        without = {arm: "it has no pairs whose number could be matched" for arm, _ in runs.keys() - cut.keys()}
        parts[f" with {least:,} pairs each"] = judged(again, lost | without, comparison, swept)
        results = [*results, *(result._replace(arm=f"{result.arm}, {least} pairs") for result in again)]
    return keep(next(iter(runs.values())).store, results, parts), parts


def run_all(runs: Runs, reward: str | None, at_once: int) -> tuple[list[Result], dict[str, str]]:
    """Return the result of each run, and of each arm that has none, why: the others go on."""
    results, failed, progress = list[Result](), dict[str, str](), Progress("runs", len(runs))
    for (arm, seed), made in ended_runs(runs, at_once):
        if isinstance(made, ConfigurationError):
            warn(f"{arm}, seed {seed}, has no result: {made}")
            failed[arm] = f"seed {seed}: {made}"
        else:
            run = runs[arm, seed]
            results.append(read_result(arm, seed, made, ranked_by(reward, run), run.proxy))
        progress.advance(1)
    progress.close()
    if not results:
        raise ConfigurationError("no arm has a result: " + "; ".join(f"{arm}: {why}" for arm, why in failed.items()))
    order = list(runs)
    return sorted(results, key=lambda result: order.index((result.arm, result.seed))), failed


def judged(
    results: list[Result], failed: dict[str, str], comparison: ComparisonConfig, swept: list[Sweep]
) -> tuple[Comparison, list[Verdict]]:
    """Return results as a comparison, with a verdict for each pair of arms."""
    found = gather(results, failed, comparison, swept)
    return found, verdicts(found)


def keep(uri: str, results: list[Result], parts: Parts) -> Artifact:
    """Commit the table and the page of a comparison, under the key of what is in them."""
    store, table = open_store(uri), table_bytes(models_table(results), "comparison")
    page = comparison_page("RS-DPO, comparison", store.uri, parts)
    digest = sha256_of(table)
    draft = Draft(store, provenance_of("compare", 1, {"table": digest, "page": sha256_of(page)}))
    files = {"comparison.parquet": table, PAGE: page}
    made = draft.commit("comparison", files, digest, rows=len(results))
    record = RunRecord.begin(store)
    record.note(draft.folder)
    record.finish({"comparison": made})
    return made


def main(arguments: list[str] | None = None) -> None:
    """Run a comparison from the command line; exit as `flows.rs_dpo` does where it cannot run."""
    options = compare_parser().parse_args(arguments)
    with ends_with_a_message():
        comparison = read_section(ComparisonConfig, options.config, options.set)
        runs = configurations(comparison, expand(comparison), load_values)
        if options.dry_run:
            print("\n".join(f"{arm}, seed {seed}" for arm, seed in runs))
            return
        check_places()
        foresee_arms(runs)
        with RunLog() as log:
            start_server(log.path)
            made, parts = compare(comparison)
        show(made, parts, options.json)


def foresee_arms(runs: Runs) -> None:
    """Go through each arm without running it, so that what is wrong in the last one is known before the first begins.

    Raises:
        ConfigurationError: Names the arm, and what is missing or wrong.
    """
    seen: set[str] = set()
    for (arm, _), config in runs.items():
        if arm not in seen:
            with naming(arm):
                foresee(flow_of(config), config.sections())
        seen.add(arm)
    if straight := sorted({arm for (arm, _), config in runs.items() if not config.alignment.snapshots}):
        warn(
            f"snapshots = 0 in {', '.join(straight)}: the way there is taken for a straight line from sft over sqrt(KL)"
        )


def show(made: Artifact, parts: Parts, as_json: bool) -> None:
    """Print each arm's figures, a sentence for each pair of arms, and where the page is."""
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False)
    for name, (comparison, found) in parts.items():
        console.print(rich_table(arms_table(comparison), f"Arms{name}"))
        if comparison.weakened:
            lost = weakened_table(comparison)
            console.print(rich_table(lost, lost.caption))
        if (measured := benchmarks_table(comparison)) is not None:
            console.print(rich_table(measured))
        for verdict in found:
            console.print(verdict.sentence, soft_wrap=True, highlight=False)
        for arm, why in comparison.failed.items():
            console.print(f"{arm} has no result: {why}", soft_wrap=True, highlight=False)
    page = next(f"{made.uri}/{entry.path}" for name, entry in read_files(made).items() if name == PAGE)
    console.print(f"The page: {page}", soft_wrap=True, highlight=False)
    if as_json:
        told = [_told(name, *part) for name, part in parts.items()]
        print(json.dumps({"comparison": made.uri, "page": page, "parts": told}), flush=True)


def _told(name: str, comparison: Comparison, found: list[Verdict]) -> dict[str, Any]:
    """Return a comparison for programs."""
    table, lost = arms_table(comparison), weakened_table(comparison)
    verdicts_ = [
        {"arm": each.arm, "other": each.other, "p": each.p, "word": each.word, "sentence": each.sentence}
        for each in found
    ]
    told = {"name": name, "head": table.head, "rows": table.rows, "verdicts": verdicts_, "failed": comparison.failed}
    measured = benchmarks_table(comparison)
    if measured is not None:
        told["benchmarks"] = {"head": measured.head, "rows": measured.rows}
    return told | {"weakened": {"head": lost.head, "rows": lost.rows}}


if __name__ == "__main__":
    main()
