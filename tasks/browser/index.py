"""A run as tables in memory, made once when it is opened: afterwards no page reads the store.

DuckDB holds one database a run, with the tables `prompts` (a row a prompt, with the figures that are filtered by),
`samples`, `pairs`, `evaluation` and `held_out`. A prompt's `place` is its number in the order of the completions.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from tasks.browser.gaps import Gaps
from tasks.browser.repeats import REPEATS
from tasks.browser.run_files import RunFiles, other_rewards
from tasks.browser.scored import scored_parts
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.parquet import read_tables
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import read_ahead, read_slices

TITLES = {
    "given": "prompts",
    "samples": "completions and rewards",
    "others": "rewards of other models",
    "selected": "pairs",
    "held_out": "prompts of the evaluation",
    "evaluation": "evaluation",
}
"""Table as it is read -> what people call it."""
PARTS_AT_ONCE = 16
"""Parts of completions that are inserted together."""
_TABLES = """
CREATE TABLE {db}.given (given BIGINT, prompt_id VARCHAR, messages STRUCT(role VARCHAR, content VARCHAR)[],
    source VARCHAR);
CREATE TABLE {db}.numbered (place BIGINT, prompt_id VARCHAR);
CREATE TABLE {db}.samples (place BIGINT, completion_id INTEGER, completion VARCHAR, num_tokens INTEGER,
    truncated BOOLEAN, repeats FLOAT, reward DOUBLE);
CREATE TABLE {db}.selected (prompt_id VARCHAR, chosen_id INTEGER, rejected_id INTEGER, reward_gap DOUBLE,
    preference_prob DOUBLE);
CREATE TABLE {db}.evaluation (policy VARCHAR, prompt_id VARCHAR, completion_id INTEGER, completion VARCHAR,
    reward_name VARCHAR, reward DOUBLE);
CREATE TABLE {db}.others (prompt_id VARCHAR, completion_id INTEGER, reward DOUBLE, model VARCHAR);
CREATE TABLE {db}.held_out (prompt_id VARCHAR, messages STRUCT(role VARCHAR, content VARCHAR)[]);
"""
_FIGURES = """
CREATE TABLE {db}.pairs AS
    SELECT place, chosen_id, rejected_id, reward_gap, preference_prob
    FROM {db}.selected JOIN {db}.numbered USING (prompt_id) ORDER BY place, reward_gap DESC, chosen_id, rejected_id;
CREATE TABLE {db}.prompts AS
WITH drawn AS (
    SELECT place, count(*) AS k, avg(reward) AS reward, max(reward) - min(reward) AS gap, avg(num_tokens) AS length,
        count(*) FILTER (truncated) AS truncated, count(*) FILTER (repeats > {repeats}) AS repeating,
        count(reward) AS scored, count(DISTINCT hash(completion)) AS texts, count(DISTINCT reward) AS rewards
    FROM {db}.samples GROUP BY place),
kept AS (
    SELECT place, count(*) AS pairs, count(*) FILTER (w.num_tokens > l.num_tokens) AS longer
    FROM {db}.pairs JOIN {db}.samples AS w USING (place) JOIN {db}.samples AS l USING (place)
    WHERE w.completion_id = chosen_id AND l.completion_id = rejected_id GROUP BY place)
SELECT coalesce(numbered.place, {rest} + given) AS place, coalesce(numbered.prompt_id, given.prompt_id) AS prompt_id,
    coalesce(source, '') AS source, coalesce(messages, []) AS messages,
    lower(array_to_string(list_transform(messages, lambda m: m.content), chr(10))) AS searched,
    coalesce(k, 0) AS k, reward, gap, length, coalesce(drawn.truncated, 0) AS truncated,
    coalesce(repeating, 0) AS repeating, coalesce(scored, 0) AS scored, coalesce(texts, 0) AS texts,
    coalesce(rewards, 0) AS rewards, coalesce(pairs, 0) AS pairs, coalesce(longer, 0) AS longer
FROM {db}.given FULL JOIN {db}.numbered USING (prompt_id)
    LEFT JOIN drawn ON drawn.place = numbered.place LEFT JOIN kept ON kept.place = numbered.place
ORDER BY 1;
DROP TABLE {db}.given; DROP TABLE {db}.numbered; DROP TABLE {db}.selected;
"""


def connect() -> duckdb.DuckDBPyConnection:
    """Open DuckDB in memory; no query can reach a file, and no extension is loaded."""
    settings: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    settings |= {"temp_directory": ""}  # memory alone: nothing is written
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET enable_external_access = false")
    return connection


class RunIndex:
    """A run's tables in DuckDB, and the gaps of its pairs."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str, files: RunFiles) -> None:
        """Name the database; nothing is read yet."""
        self.name = name
        self.files = files
        self.gaps = Gaps(files.rule())
        self.problems: dict[str, str] = {}
        """What could not be read -> why."""
        self.rows_read = 0
        """Of the completions: how far `build` is."""
        self._connection = connection

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query as dictionaries; `{db}` in it stands for the run's database."""
        found = self._connection.cursor().execute(sql.format(db=self.name), parameters)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def build(self) -> None:
        """Read the run's tables from the store; what is damaged is left out, and named in `problems`.

        Raises:
            StoreError: The store cannot be read.
        """
        cursor = self._connection.cursor()
        cursor.execute(f"ATTACH ':memory:' AS {self.name}")
        cursor.execute(_TABLES.format(db=self.name))
        for name, load in (
            ("given", lambda: self._load(cursor, "given", self.files.artifact("prompts"), _numbered)),
            ("samples", lambda: self._load_samples(cursor)),
            ("others", lambda: self._load_others(cursor)),
            ("selected", lambda: self._load(cursor, "selected", self.files.artifact("pairs"))),
            ("held_out", lambda: self._load(cursor, "held_out", self.files.held_out())),
            ("evaluation", lambda: self._load(cursor, "evaluation", self.files.artifact("evaluation"))),
        ):
            try:
                load()
            except (DamagedArtifactError, pa.ArrowException, ValueError, KeyError) as error:
                cursor.execute(f"DELETE FROM {self.name}.{name}")
                self.problems[TITLES[name]] = str(error)
        if TITLES["samples"] in self.problems:
            self.gaps = Gaps(self.files.rule())
        self.gaps.finish()
        cursor.execute(_FIGURES.format(db=self.name, repeats=REPEATS, rest=1 << 40))

    def close(self) -> None:
        """Forget the tables."""
        self._connection.cursor().execute(f"DETACH DATABASE IF EXISTS {self.name}")

    def _load(
        self,
        cursor: duckdb.DuckDBPyConnection,
        name: str,
        artifact: Artifact | None,
        change: Callable[[pa.Table, int], pa.Table] = lambda table, _: table,
    ) -> None:
        """Read a table of the store into the table of this name, which has some of its columns."""
        if artifact is None:
            return
        known = [row[0] for row in cursor.execute(f"SELECT column_name FROM (DESCRIBE {self.name}.{name})").fetchall()]
        columns, rows = [column for column in SCHEMAS[artifact.kind].names if column in known], 0
        for table in read_tables(artifact, columns):
            _insert(cursor, f"{self.name}.{name}", change(table, rows))
            rows += table.num_rows

    def _load_samples(self, cursor: duckdb.DuckDBPyConnection) -> None:
        completions = self.files.artifact("completions")
        if completions is None:
            return
        place = 0
        parts = scored_parts(self.files.store, completions, self.files.artifact("rewards"))
        while several := list(islice(parts, PARTS_AT_ONCE)):
            tables = []
            for candidates, rows in several:
                self.gaps.add(candidates)
                ids = pa.table({"place": range(place, place + len(candidates.prompt_ids)), "id": candidates.prompt_ids})
                _insert(cursor, f"{self.name}.numbered", ids)
                tables.append(rows.set_column(0, "place", pa.array(rows["number"].to_numpy() + place)))
                place += len(candidates.prompt_ids)
            together = pa.concat_tables(tables)
            _insert(cursor, f"{self.name}.samples", together)
            self.rows_read += together.num_rows

    def _load_others(self, cursor: duckdb.DuckDBPyConnection) -> None:
        for model, rewards in other_rewards(self.files).items():
            for table in read_ahead(read_slices(self.files.store, rewards)):
                names = pa.repeat(pa.scalar(model), table.num_rows)
                _insert(cursor, f"{self.name}.others", table.append_column("model", names))


def _numbered(table: pa.Table, rows: int) -> pa.Table:
    return table.add_column(0, "given", pa.array(range(rows, rows + table.num_rows)))


def _insert(cursor: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Insert rows whose columns are in the order of the table's."""
    cursor.register("incoming", table)
    cursor.execute(f"INSERT INTO {name} SELECT * FROM incoming")
    cursor.unregister("incoming")
