"""The report as one HTML file: it needs no network and no other file, and every text of a model in it is escaped."""

from collections.abc import Callable, Iterator
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from tasks.report import blocks
from tasks.report.believed import believe_section, conclusion
from tasks.report.benchmarked import benchmarks_section
from tasks.report.blocks import Section
from tasks.report.costs import costs_section
from tasks.report.evaluated import better_section
from tasks.report.facts import Facts
from tasks.report.origin import origin_section
from tasks.report.planned import planned_section
from tasks.report.reward import reward_section
from tasks.report.trained_on import trained_on_section
from tasks.report.trainings import training_section

SECTIONS: tuple[Callable[[Facts], Section | None], ...] = (
    better_section,
    benchmarks_section,
    believe_section,
    trained_on_section,
    training_section,
    reward_section,
    costs_section,
    planned_section,
    origin_section,
)
"""In the order in which a person asks."""
OF_A_PILOT = (planned_section, trained_on_section, reward_section, costs_section, origin_section)
"""What there is to tell of a pilot, whose policy is hardly trained."""


def report_page(facts: Facts) -> bytes:
    """Return the report on a run as far as it has come, as HTML."""
    return render(
        title=f"RS-DPO, {'pilot' if facts.run.is_pilot() else 'run'} {facts.run.id}" if facts.run else "RS-DPO",
        started=f"{facts.run.started:%Y-%m-%d %H:%M} UTC" if facts.run else "",
        store=facts.store.uri,
        conclusion=conclusion(facts.verdicts),
        sections=list(_sections(facts)),
    )


def render(title: str, started: str, store: str, conclusion: str, sections: list[Section]) -> bytes:
    """Return a page of sections as HTML.

    Args:
        title: Of the page.
        started: When what it tells of began.
        store: Where what it tells of is.
        conclusion: In one sentence.
        sections: A question and its answer each.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("tasks.report") / "report.html.jinja").read_text())
    page = template.render(
        title=title, started=started, store=store, conclusion=conclusion, sections=sections, kind=blocks.kind
    )
    return page.encode("utf-8", "backslashreplace")


def _sections(facts: Facts) -> Iterator[Section]:
    for make in SECTIONS if facts.config.data.pilot is None else OF_A_PILOT:
        if (section := make(facts)) is not None:
            yield section
