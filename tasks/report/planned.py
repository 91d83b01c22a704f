"""What a pilot predicts of the whole run, and what came of it."""

from collections.abc import Iterator

from tasks.pipeline.pace import duration_text
from tasks.planning.estimates import LEVEL, Estimate
from tasks.planning.prediction import BYTES, COST, SECONDS, read_prediction
from tasks.report.blocks import Section, Table, Text
from tasks.report.facts import Facts
from tasks.store.artifacts import Artifact

HEAD = ("", "predicted", f"{LEVEL:.0%} interval")
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def planned_section(facts: Facts) -> Section | None:
    """Return what was predicted and, of a whole run, what came; None where the run has not ended or had no pilot."""
    if facts.planned is None:
        return None
    prediction, expected, came = facts.planned
    if facts.config.data.pilot is not None:
        notes = [Text(note) for note in prediction_notes(prediction, facts.config.data.labels_completions)]
        return Section("What will the whole run take?", [*notes, Table(HEAD, prediction_rows(prediction))])
    rows = []
    for name, value in expected.items():
        found = came.get(name)
        within = "-" if found is None else "yes" if value.low <= found <= value.high else "*no"
        rows.append((*_row(name, value), "-" if found is None else quantity_text(name, found), within))
    of = f"A pilot of {prediction.stats['pilot']:,} prompts predicted this run."
    return Section("Did it take what was predicted?", [Text(of), Table((*HEAD, "came", "within"), rows)])


def prediction_rows(prediction: Artifact) -> list[tuple[str, str, str]]:
    """Return name, value and interval of each quantity, for people to read."""
    return [_row(name, value) for name, value in read_prediction(prediction).items()]


def prediction_notes(prediction: Artifact, gold: bool) -> Iterator[str]:
    """Yield what a reader must know of a prediction.

    Args:
        prediction: As it is stored.
        gold: Whether the reward model is trained on labels of the completions that are sampled.
    """
    yield (
        f"Told from {prediction.stats['pilot']:,} of {prediction.stats['prompts']:,} prompts, which the whole run will "
        "not sample again. Seconds are those still to come, on this device."
    )
    if gold:
        yield (
            "The whole run's reward model will be another one, since it is trained on labels of all completions: pairs "
            "are predicted for the pilot's, and may lie outside of the intervals."
        )


def quantity_text(name: str, value: float) -> str:
    """Write a quantity of a prediction with its unit."""
    if name.startswith(SECONDS):
        return f"{value:.1f} s" if value < 100 else duration_text(value)
    if name == BYTES:
        size, unit = next(((size, unit) for size, unit in UNITS if value >= size), (1.0, "B"))
        return f"{value / size:.3g} {unit}"
    return f"{value:,.2f}" if name == COST else f"{value:,.0f}"


def _row(name: str, value: Estimate) -> tuple[str, str, str]:
    predicted, low, high = (quantity_text(name, each) for each in value)
    return name, predicted, f"{low} to {high}"
