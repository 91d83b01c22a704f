"""What is written about a model beside its weights: its licence, and which commit of the hub it is."""

import re
from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"
LICENCES = ("LICENSE*", "LICENCE*", "COPYING*")
TEXTS = {
    "apache-2.0": ("Apache License", "Version 2.0"),
    "mit": ("Permission is hereby granted, free of charge", 'THE SOFTWARE IS PROVIDED "AS IS"'),
}
"""The hub's name of a licence -> what stands in its text."""
_SNAPSHOT = re.compile(r"/models--[^/]+/snapshots/([0-9a-f]{40})$")


def find_licence(folder: Path) -> dict[str, str]:
    """Return a model's licence: `license` and what else its card says of it, and `file`; {} where nothing says it.

    The names are those of the hub's model cards. The text of a licence that is not recognised is `other`.
    """
    card = card_facts(folder / CARD)
    if said := {name: str(card[name]) for name in ("license", "license_name", "license_link") if card.get(name)}:
        return {**said, "file": CARD}
    for path in sorted(path for pattern in LICENCES for path in folder.glob(pattern) if path.is_file()):
        text = " ".join(path.read_text(errors="replace").split())
        known = [name for name, parts in TEXTS.items() if all(part in text for part in parts)]
        return {"license": known[0] if known else "other", "file": path.name}
    return {}


def card_facts(card: Path) -> dict[str, Any]:
    """Return what the head of a model card says, nothing where there is no card, no head, or none in YAML."""
    if not card.is_file():
        return {}
    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card.read_text(errors="replace"), re.S)
    try:
        facts = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError:
        return {}
    return facts if isinstance(facts, dict) else {}


def hub_commit(folder: Path) -> str | None:
    """Return the commit of a folder that was downloaded from the hub; None for any other folder."""
    found = _SNAPSHOT.search(str(folder))
    return found[1] if found else None
