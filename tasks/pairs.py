"""Pair selection: reads rewards and completions part by part, writes pairs of completion ids.

Which pairs, `pairs.strategy` says: a function in `tasks/selection/`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.pipeline.dry_run import pending
from tasks.pipeline.pages import stats_lines
from tasks.pipeline.progress import track
from tasks.pipeline.stage import stage
from tasks.rewards.candidates import COLUMNS, gather
from tasks.rewards.scored import read_scored
from tasks.selection.counts import PairCounts
from tasks.selection.max_pairs import SmallestDraws
from tasks.selection.pairs import Candidates, PairIndices
from tasks.selection.strategies import PairsConfig, draws, select
from tasks.selection.threshold import preference_prob
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, add_digests, format_digest, rows_digest
from tasks.store.scratch import scratch_folder

FILE_ROWS = 1 << 17
"""Pairs a file, about 2 MB: parts of a few prompts would make files that are mostly header."""

Parts = Iterable[tuple[pa.Table, pa.Table]]
"""Some prompts' completions and their rewards, part by part."""


def pair_table(candidates: Candidates, pairs: PairIndices, tau: float) -> pa.Table:
    """Return the stored columns of the selected pairs."""
    chosen = candidates.rewards[pairs.row, pairs.chosen]
    rejected = candidates.rewards[pairs.row, pairs.rejected]
    columns = {
        "prompt_id": candidates.prompt_ids.take(pa.array(pairs.row)),
        "chosen_id": pairs.chosen,
        "rejected_id": pairs.rejected,
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "reward_gap": chosen - rejected,
        "preference_prob": preference_prob(chosen - rejected, tau),
    }
    return pa.table(columns).cast(SCHEMAS["pairs"], safe=False)


def bound_of_parts(parts: Parts, counts: PairCounts) -> np.uint64 | None:
    """Return the bound of the draws under which `max_pairs` pairs are, and count the pairs; None: all stay."""
    config = counts.config
    if config.max_pairs is None:
        return None
    smallest = SmallestDraws(config.max_pairs)
    for completions, rewards in track("counting pairs of parts", parts):
        smallest.add(draws(gather(completions, rewards), config))
    counts.before_max_pairs = smallest.seen
    return smallest.bound()


def pairs_of_parts(parts: Parts, counts: PairCounts, below: np.uint64 | None = None) -> Iterator[pa.Table]:
    """Yield the pairs of each part, that is, of some prompts' completions and their rewards, and count them."""
    config = counts.config
    for completions, rewards in track("selecting pairs of parts", parts):
        candidates = gather(completions, rewards)
        selected = select(candidates, config, below)
        counts.add(candidates, selected)
        yield pair_table(candidates, selected, config.tau)


def write_pairs(tables: Iterable[pa.Table], folder: Path) -> str:
    """Write tables of pairs as files of `FILE_ROWS` rows or somewhat more; return the digest of all rows."""
    digests = []
    for number, table in enumerate(_joined(tables)):
        (folder / f"rows-{number:06d}.parquet").write_bytes(table_bytes(table, "pairs"))
        digests.append(rows_digest(table))
    return format_digest(add_digests(digests))


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting, rows = [], 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= FILE_ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.concat_tables(waiting)


def _page(artifact: Artifact) -> list[str]:
    """Return the counts as Markdown; the profile is for the report."""
    stats = {name: value for name, value in artifact.stats.items() if name != "profile"}
    return stats_lines(artifact.model_copy(update={"stats": stats}))


def _preview() -> tuple[Artifact, dict[str, Any]]:
    return pending(0, "build_pairs"), {}


@stage(version=3, preview=_preview, page=_page)
def build_pairs(out: Draft, rewards: Artifact, completions: Artifact, pairs: PairsConfig) -> Artifact:
    """Select the pairs to train on: sigma((r_j - r_l) / tau) > eta."""
    counts = PairCounts(pairs)
    below = bound_of_parts(read_scored(out.store, completions, rewards, COLUMNS), counts)
    parts = read_scored(out.store, completions, rewards, COLUMNS)
    with scratch_folder(out.provenance.key[:16]) as folder:
        digest = write_pairs(pairs_of_parts(parts, counts, below), folder)
        if not counts.pairs:
            raise ConfigurationError(counts.explain_none())
        files = {path.name: path for path in sorted(folder.iterdir())}
        return out.commit("pairs", files, digest, rows=counts.pairs, stats=counts.stats())
