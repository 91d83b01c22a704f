"""Add prompts to the store, for runs whose `data.prompts` is `added`.

python -m flows.add_prompts new_prompts.jsonl --store s3://bucket/prefix
"""

if __name__ == "__main__":  # a wrong flag is told before the imports below, which take seconds
    from flows.arguments import add_prompts_parser

    add_prompts_parser().parse_args()


from typing import Any

from prefect import flow

from flows.additions import add, open_addition, report_addition
from flows.arguments import add_prompts_parser
from tasks.config.sections import DataSource
from tasks.data.added_prompts import ADDED_PROMPTS
from tasks.data.tally import read_records
from tasks.prompts import collect_prompts


@flow(name="add-prompts")
def add_prompts(source: DataSource, store: str = "./.rsdpo", max_bad_fraction: float = 0.01) -> dict[str, Any]:
    """Add the prompts of a source that the store does not have yet, and announce them as the event `prompts.added`.

    Args:
        source: A file, a folder or a hub dataset, as for `data.prompts`.
        store: A folder, `file:///...` or `s3://bucket/prefix`.
        max_bad_fraction: Share of bad rows that is left out and counted; above it nothing is added.

    Returns:
        Rows `read`; prompts that were `new` and `known`; rows that were `duplicate` within the source and, by reason,
        `bad`; the `store`; and whether the event was `announced`.

    Raises:
        ConfigurationError: There is no such source, it cannot be read or has too many bad rows, the store cannot be
            written, or `max_bad_fraction` is out of bounds.
    """
    home, tally = open_addition(source, store, max_bad_fraction)
    rows = ADDED_PROMPTS.lay_out(collect_prompts(read_records(source, "prompts", tally), tally))
    return report_addition(home, "prompts", tally, rows.num_rows, ADDED_PROMPTS.append(home, rows))


def main(arguments: list[str] | None = None) -> None:
    """Add prompts; exit with 2 and one message where something is typed wrong or cannot be read or written."""
    add(add_prompts_parser().parse_args(arguments), DataSource, add_prompts.fn)


if __name__ == "__main__":
    main()
