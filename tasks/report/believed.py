"""Can I believe it: what the monitors say."""

from collections.abc import Sequence

from tasks.monitors.judging import FAIL, OK, UNMEASURED, WARN, Verdict
from tasks.report.blocks import Alert, Block, Section, Table, Text
from tasks.report.facts import Facts

ORDER = (FAIL, WARN, OK, UNMEASURED)


def conclusion(verdicts: Sequence[Verdict]) -> str:
    """Return what the monitors say, in one sentence."""
    count = {level: sum(verdict.level == level for verdict in verdicts) for level in ORDER}
    if not verdicts:
        return "No monitor has measured anything yet."
    doubts = count[FAIL] + count[WARN]
    if not doubts + count[OK]:
        said = "No figure could be judged"
    elif doubts:
        said = f"{doubts} of {doubts + count[OK]} figures are outside of their healthy range"
    else:
        said = f"All {count[OK]} figures are within their healthy range"
    return f"{said}; not measured: {count[UNMEASURED]}." if count[UNMEASURED] else f"{said}."


def believe_section(facts: Facts) -> Section | None:
    """Return the verdicts; None where nothing was judged yet."""
    if not facts.verdicts:
        return None
    blocks: list[Block] = [Text(conclusion(facts.verdicts))]
    blocks += [Alert(each.level, each.text) for each in facts.verdicts if each.level in (FAIL, WARN)]
    rows = [
        (
            f"{each.name.replace('_', ' ')}{f' ({each.about})' if each.about else ''}",
            _value(each),
            each.level,
            each.text,
        )
        for each in sorted(facts.verdicts, key=lambda each: ORDER.index(each.level))
        if each.level in (OK, UNMEASURED)
    ]
    if rows:
        blocks.append(Table(("monitor", "value", "verdict", "what it measures"), rows))
    return Section("Can I believe it?", blocks)


def _value(verdict: Verdict) -> str:
    return "-" if verdict.value is None else f"{verdict.value:.3g}"
