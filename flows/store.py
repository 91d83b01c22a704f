"""Look at a store, prune it, and merge the small parts of its tables.

python -m flows.store STORE
python -m flows.store STORE --lineage 159241bd
python -m flows.store STORE --pair 3fa90c
python -m flows.store prune STORE --keep-last 5 --dry-run
python -m flows.store compact STORE
"""

if __name__ == "__main__":  # a wrong flag is told before the imports below, which take seconds
    from flows.arguments import store_options

    store_options()


import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.arguments import store_options
from flows.command_line import stop
from tasks.config.errors import ConfigurationError
from tasks.inspection.browse import find_run, show_prompt
from tasks.inspection.catalog import Catalog, Entry, check_there, read_catalog
from tasks.inspection.lineage import find_entry, trace
from tasks.inspection.printable import printable
from tasks.inspection.prune import prune
from tasks.pipeline.pace import duration_text
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.compaction import compact_store
from tasks.store.filesystem import store_errors
from tasks.store.folders import Store
from tasks.store.growing import replaced_by
from tasks.store.runs import Run, list_runs

Facts = dict[str, Any]
COLUMNS = {
    "artifacts": ("stage", "made", "size", "rows", "digest", "state"),
    "tables": ("table", "made", "size", "rows", "parts", "key", "state"),
    "checkpoints": ("stage", "made", "size", "step", "key", "state"),
    "runs": ("run", "started", "stages", "host", "pid", "state"),
}
"""Columns that are printed of each list; `--json` has more."""


def main(arguments: list[str] | None = None) -> None:
    """Print what is asked for; exit with 2 and one message where something is wrong."""
    options = store_options(arguments)
    try:
        facts, text = COMMANDS[options.command](options)
    except store_errors(ConfigurationError, ValidationError, DamagedArtifactError) as error:
        stop(error)
    if options.json:
        print(json.dumps(facts))
    else:
        Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(*text, sep="\n")


def summary(store: Store, catalog: Catalog) -> dict[str, list[Facts]]:
    """Return what a store holds: stages' artifacts, tables, checkpoints and runs, each with the newest last."""
    tables = defaultdict(list)
    for part in catalog.select("part"):
        tables[part.table].append(part)
    runs, damaged = list_runs(store)
    return {
        "artifacts": [_entry(entry) for entry in catalog.select("stage")],
        "tables": [_table(folder, parts) for folder, parts in tables.items()],
        "checkpoints": [_entry(entry) for entry in catalog.select("checkpoint")],
        "runs": [*map(_run, runs), *({"run": folder, "state": "damaged"} for folder in damaged)],
    }


def _look(options: argparse.Namespace) -> tuple[Facts, list[Any]]:
    store = Store(options.store)
    catalog = read_catalog(store)
    if options.lineage:
        tree = trace(store, catalog, find_entry(catalog, options.lineage))
        return tree, [_tree(tree)]
    if options.pair:
        shown = show_prompt(store, catalog, find_run(list_runs(store)[0], options.run), options.pair)
        return shown, _prompt_page(shown)
    listed = summary(store, catalog)
    return listed, [_listing(name, rows) for name, rows in listed.items() if rows] or ["The store is empty."]


def _prune(options: argparse.Namespace) -> tuple[Facts, list[Any]]:
    pruned = prune(Store(options.store), options.keep_last, options.dry_run)
    entries = [_entry(entry) for entry in pruned.entries]
    facts = {"pruned": entries, "runs": [run.id for run in pruned.runs], "bytes": pruned.size}
    verb = "Would free" if options.dry_run else "Freed"
    count = f"{verb} {decimal(pruned.size)}: folders {len(entries)}, run records {len(pruned.runs)}."
    lines = [Text(f"{decimal(entry['size']):>9}  {entry['folder']}") for entry in entries]
    return facts, [*lines, *(Text(f"{'':>9}  runs/{run.id}") for run in pruned.runs), count]


def _compact(options: argparse.Namespace) -> tuple[Facts, list[Any]]:
    store = Store(options.store)
    check_there(store)
    tables = [
        {"table": table.folder, "merged": sum(len(replaced_by(part)) for part in merged), "into": len(merged)}
        for table, merged in compact_store(store)
    ]
    lines = [Text(f"{each['merged']} parts merged into {each['into']}  {each['table']}") for each in tables]
    last = "The parts that were merged stay for what names them, until `prune` finds nothing that does."
    return {"tables": tables}, [*lines, last] if lines else ["No table has several small parts."]


def _entry(entry: Entry) -> Facts:
    """Return the facts of an entry; `size` counts the bytes of its own files."""
    name, manifest = entry.folder.removeprefix("checkpoints/"), entry.manifest
    return {
        "stage": name.partition("/")[0],
        "key": name.split("/")[1],
        "step": name.rpartition("/step-")[2],
        "folder": entry.folder,
        "kind": manifest.kind if manifest else "",
        "made": entry.made.isoformat() if entry.made else "",
        "size": entry.size,
        "rows": manifest.rows if manifest else 0,
        "digest": entry.digest,
        "state": entry.damage or "complete",
    }


def _table(folder: str, parts: list[Entry]) -> Facts:
    """Return the facts of a table: its parts summed; rows that a merged part holds too count once."""
    bad = [part for part in parts if part.damage]
    replaced = {merged for part in parts for merged in part.replaces}
    return {
        "table": folder.split("/")[1],
        "key": folder.split("/")[2],
        "folder": folder,
        "made": parts[-1].made.isoformat() if parts[-1].made else "",
        "size": sum(part.size for part in parts),
        "rows": sum(part.manifest.rows for part in parts if part.manifest and part.folder not in replaced),
        "parts": len(parts),
        "state": f"{len(bad)} parts damaged or incomplete" if bad else "complete",
    }


def _run(run: Run) -> Facts:
    state = "in use" if run.in_use() else "finished" if run.status == "finished" else "interrupted"
    return {**run.model_dump(mode="json", exclude={"id", "process", "config"}), "run": run.id, "state": state}


def _listing(name: str, rows: list[Facts]) -> Table:
    table = Table(title=name, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in COLUMNS[name]:
        table.add_column(
            "age" if column in ("made", "started") else column,
            justify="right" if column in ("size", "rows", "parts", "stages", "step") else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(_cell(column, row)) for column in COLUMNS[name]))
    table.add_row()
    return table


def _cell(column: str, row: Facts) -> str:
    """Return a fact as it is printed; of hashes the first 12 digits."""
    value = row.get(column, "")
    if value == "":
        return "-"
    if column == "state" and value not in ("complete", "finished", "in use", "interrupted"):
        return f"{value} ({row.get('folder', row.get('run'))})"
    if column in ("digest", "key"):
        return str(value)[:12]
    return FORMS.get(column, str)(value)


def _age(moment: str) -> str:
    return duration_text((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


FORMS: dict[str, Callable[[Any], str]] = {
    "made": _age,
    "started": _age,
    "size": decimal,
    "rows": "{:,}".format,
    "stages": lambda stages: str(len(stages)),
}
"""Column -> the text of its value, where that is not plain text."""


def _tree(node: Facts, name: str = "", within: Tree | None = None) -> Tree:
    """Return an artifact's tree of inputs for a person."""
    head = f"{name + ': ' if name else ''}{node['stage']} {node['digest'][:12]}"
    lines = [f"{head} (above)"] if node.get("repeated") else [head, node["where"], node.get("made", "")]
    lines.append(", ".join(f"{key}={value}" for key, value in node.get("settings", {}).items()))
    lines.append(node.get("damage", ""))
    label = Text("\n".join(filter(None, map(printable, lines))))
    label.stylize("bold", 0, len(printable(head)))
    tree = Tree(label) if within is None else within.add(label)
    for listed, why in (("parts", ""), ("keeps", ", kept to serve again")):
        for table, counts in node.get(listed, {}).items():
            missing = f", {counts['missing']} missing" if counts["missing"] else ""
            tree.add(Text(f"{counts['parts']} parts of {table}: {counts['rows']:,} rows{missing}{why}"))
    for name, source in node.get("inputs", {}).items():
        _tree(source, name, tree)
    return tree


def _prompt_page(shown: Facts) -> list[Any]:
    """Return one prompt's conversation, completions and pairs for a person."""
    lines = [f"prompt {shown['prompt_id']} of run {shown['run']}"]
    lines += [f"{message['role']}: {message['content']}" for message in shown["messages"]]
    lines += ["", f"{len(shown['completions'])} completions: {shown['drawn_by']}", f"rewards: {shown['scored_by']}"]
    for row in shown["completions"]:
        reward = "      -" if row["reward"] is None else f"{row['reward']:7.3f}"
        cut = ", cut" if row["finish_reason"] == "length" else ""
        lines.append(f"{row['completion_id']:3} {reward}  {row['completion']}  [{row['num_tokens']} tokens{cut}]")
    lines += ["", f"{len(shown['pairs'])} pairs"]
    for pair in shown["pairs"]:
        lines.append(f"reward gap {pair['reward_gap']:.3f}, preference probability {pair['preference_prob']:.3f}")
        for side in ("chosen", "rejected"):
            lines.append(f"  {side:8} {pair[f'{side}_id']:3} {pair[f'{side}_reward']:7.3f}  {pair[side]}")
    return [Text(printable(line)) for line in lines]


COMMANDS = {"list": _look, "prune": _prune, "compact": _compact}

if __name__ == "__main__":
    main()
