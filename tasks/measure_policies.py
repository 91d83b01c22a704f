"""Benchmarks: read policies and questions, write how the policies do by a judge, by a rule, and in tasks of lm-eval."""

from collections.abc import Mapping
from typing import Any

from tasks.benchmarks.material import FILE, JSON, check_all_fit, read_material, stored_material, verdicts
from tasks.benchmarks.measuring import Measuring
from tasks.benchmarks.outcomes import ANSWERS, FIGURES, answers_table, figures_table
from tasks.benchmarks.tables import benchmarks_lines
from tasks.config.benchmarks import Benchmarks
from tasks.config.errors import ConfigurationError
from tasks.pipeline.dry_run import pending
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact, sha256_of
from tasks.store.drafts import Draft
from tasks.store.parquet import table_bytes
from tasks.store.schemas import add_digests, format_digest, rows_digest


def find_benchmarks(
    site: Site, config: Benchmarks | None, policies: Mapping[str, Artifact], system: str | None = None
) -> Artifact:
    """Bring what benchmarks ask into the store, after checking that the policies can answer; `NOTHING` without any.

    Args:
        site: Where it goes.
        config: Which benchmarks.
        policies: Whose contexts the questions must fit into.
        system: System message of questions that have none, where the benchmarks have no other.

    Raises:
        ConfigurationError: A file cannot be read, a question is too long, or lm-eval is not installed.
    """
    if config is None:
        return NOTHING
    material = read_material(config, system)
    check_all_fit(config, material, policies.values())
    return load_benchmarks(site, config, system, sha256_of(JSON.dump_json(material)))


@stage(version=1, reads={"config": ()})
def load_benchmarks(out: Draft, config: Benchmarks, system: str | None, digest: str) -> Artifact:
    """Keep what benchmarks ask; the digest of it says whether that is known.

    Raises:
        ConfigurationError: A file has changed since its digest was made.
    """
    content = JSON.dump_json(read_material(config, system))
    if sha256_of(content) != digest:
        raise ConfigurationError("a file of the benchmarks has changed while it was read: run again")
    return out.commit("benchmark_questions", {FILE: content}, digest)


def _preview(
    policies: dict[str, Artifact], material: Artifact, settings: Benchmarks
) -> tuple[Artifact, dict[str, Any]]:
    asked = verdicts(settings, stored_material(material), len(policies))
    return pending(0, "measure_policies"), {"verdicts of the judge": sum(asked.values())}


@stage(
    version=1,
    preview=_preview,
    page=benchmarks_lines,
    gpus="evaluation.benchmarks.sampling",
    run_name="benchmarks",
    retries=2,
    given=lambda material: None if material else NOTHING,
)
def measure_policies(
    out: Draft, policies: dict[str, Artifact], material: Artifact, settings: Benchmarks | None
) -> Artifact:
    """Measure policies by benchmarks; answers, verdicts and results that the store has are not asked for again."""
    assert settings is not None  # or there would be no material
    measuring = Measuring(out.store, settings, policies, stored_material(material))
    outcomes = measuring.outcomes()
    figures, answers = figures_table(outcomes), answers_table(outcomes)
    judge = "" if settings.judge is None else f"{settings.judge.model} {settings.judge.version}".strip()
    stats = {"judge": judge, "notes": {name: outcome.notes for name, outcome in outcomes.items()}}
    files = {FIGURES: table_bytes(figures, "benchmarks"), ANSWERS: table_bytes(answers, "benchmark_answers")}
    digest = format_digest(add_digests([rows_digest(figures), rows_digest(answers)]))
    return out.commit("benchmark_results", files, digest, rows=figures.num_rows, stats=stats, keeps=measuring.parts())
