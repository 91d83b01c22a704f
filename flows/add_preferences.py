"""Add preferences to the store, for runs whose `data.preferences` is `added`.

python -m flows.add_preferences new_pairs.jsonl --store s3://bucket/prefix
python -m flows.add_preferences feedback.jsonl --store .rsdpo --completions .rsdpo/sample_completions/7f06070f684c...
"""

if __name__ == "__main__":  # a wrong flag is told before the imports below, which take seconds
    from flows.arguments import add_preferences_parser

    add_preferences_parser().parse_args()


from typing import Any

from prefect import flow

from flows.additions import add, open_addition, report_addition
from flows.arguments import add_preferences_parser
from tasks.config.errors import ConfigurationError
from tasks.config.sections import PreferenceSource
from tasks.data.added_preferences import ADDED_PREFERENCES, collect_preferences
from tasks.data.feedback import read_feedback
from tasks.data.formats.comparisons import read_preferences
from tasks.inspection.sampled import find_sampled


@flow(name="add-preferences")
def add_preferences(
    source: PreferenceSource, store: str = "./.rsdpo", max_bad_fraction: float = 0.01, completions: str | None = None
) -> dict[str, Any]:
    """Add the preferences that the store does not have yet, and announce them as the event `preferences.added`.

    Args:
        source: A file, a folder or a hub dataset, with pairs of texts as for `data.preferences`, or with feedback.
        store: A folder, `file:///...` or `s3://bucket/prefix`.
        max_bad_fraction: Share of bad rows that is left out and counted; above it nothing is added.
        completions: URI of sampled completions in the store: the source holds feedback on them, rows of `prompt_id`,
            `chosen_id`, `rejected_id` and `annotator`.

    Returns:
        Rows `read`; preferences that were `new` and `known`; rows that were `duplicate` within the source and, by
        reason, `bad`; the `store`; and whether the event was `announced`.

    Raises:
        ConfigurationError: There is no such source, it cannot be read or has too many bad rows, the store cannot be
            written or has no such completions, or `max_bad_fraction` is out of bounds.
        DamagedArtifactError: The completions, or their prompts, are damaged.
    """
    if source.weight != 1:
        raise ConfigurationError(f"weight = {source.weight:g} is for data.preferences of a run: leave it out")
    home, tally = open_addition(source, store, max_bad_fraction)
    if completions is None:
        records = read_preferences(source, tally)
    else:
        records = read_feedback(source, find_sampled(home, completions), tally)
    rows = ADDED_PREFERENCES.lay_out(collect_preferences(records, ADDED_PREFERENCES.ids(home), tally))
    return report_addition(home, "preferences", tally, rows.num_rows, ADDED_PREFERENCES.append(home, rows))


def main(arguments: list[str] | None = None) -> None:
    """Add preferences; exit with 2 and one message where something is typed wrong or cannot be read or written."""
    options = add_preferences_parser().parse_args(arguments)
    add(options, PreferenceSource, add_preferences.fn, completions=options.completions)


if __name__ == "__main__":
    main()
