"""What it cost: time, tokens and memory of each stage, and what was reused."""

from tasks.planning.costs import stage_of
from tasks.report.blocks import Section, Table, Text, number
from tasks.report.facts import Facts
from tasks.report.trainings import STAGES as TRAININGS
from tasks.report.trainings import read_log


def costs_section(facts: Facts) -> Section | None:
    """Return a line a stage; None where none has come."""
    rows, total, price = list[tuple[str, ...]](), 0.0, facts.config.compute.price_per_hour
    for stage, artifact in facts.artifacts.items():
        if not artifact or not artifact.uri.startswith(facts.store.uri):
            continue
        manifest = facts.manifest(stage)
        if manifest.provenance.stage != stage_of(stage):  # an input that was taken as it is
            continue
        computed, cost = artifact.uri in facts.made, manifest.cost
        seconds = cost.get("seconds")
        total += seconds if computed and seconds is not None else 0.0
        tokens = _tokens(facts, stage)
        rate = f"{tokens / seconds:,.0f}" if tokens and seconds else "-"
        memory = max(cost.get("peak_gpu_memory", 0), 0) or cost.get("peak_memory")
        rows.append(
            (
                stage,
                "computed" if computed else "reused",
                number(seconds, 1),
                f"{tokens:,}" if tokens else "-",
                rate,
                cost.get("device", "-"),
                f"{memory / 1e9:.2f}" if memory else "-",
            )
        )
    if not rows:
        return None
    head = ("stage", "in this run", "seconds", "tokens", "tokens/s", "device", "peak memory (GB)")
    paid = "" if price is None else f", which is {total * price / 3600:.2f} at {price:g} an hour"
    note = (
        f"This run computed for {total:.0f} s{paid}. Of what was reused, the figures are those of when it was "
        "computed; a stage that grows a table counts what was missing then. Tokens of a training are those that it was "
        "fed."
    )
    return Section("What did it cost?", [Text(note), Table(head, rows)])


def _tokens(facts: Facts, stage: str) -> int:
    """Return how many tokens a stage drew or was trained on; 0 where that is not recorded."""
    if stage_of(stage) in TRAININGS:
        fed = read_log(facts, stage).get("num_tokens", [])
        return int(fed[-1][1]) if fed else 0
    return int(facts.stats(stage).get("tokens", 0))
