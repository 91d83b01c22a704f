"""Instructions with constraints that a program can check, generated from a seed, for a real chat model.

An instruction names a topic and what its answer must keep to; the constraints stand in the column `metadata`, as
`tasks/rewards/constraints.py` reads them. Neither a topic nor a combination of constraints of the held-out prompts is
in the others. Every instruction asks for at least so many words, so that no short answer keeps all of it.
"""

import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROMPTS, EVALUATION_PROMPTS = 400, 100
"""Rows of the files."""

TOPICS = """
a rainy day: umbrella window      a kitchen garden: soil tomatoes    a night train: tracks sleep
baking bread: oven flour          learning to swim: water breath     an old bridge: stone river
a good friend: trust laughter     a lost key: door pocket            the first snow: cold children
riding a bicycle: wheels balance  a city park: trees bench           a long walk: shoes path
keeping bees: honey hive          a school library: books quiet      the full moon: light night
a family dinner: table stories    playing chess: king patience       a wooden boat: sail wind
a morning run: legs sunrise       writing letters: paper stamp       a street market: fruit crowd
growing apples: tree autumn       a power cut: candle dark           learning a language: practice words
the desert: sand camel            a new neighbour: welcome house     a hot summer: shade ice
feeding birds: seeds winter       a paper map: roads compass         the smell of coffee: cup morning
a mountain hut: fire climb        playing the piano: music fingers   a visit to the dentist: teeth chair
a bus ride: driver seat           the colour blue: sky ocean         an honest mistake: sorry learn
a spider web: silk insects        saving money: bank plan            a deep lake: fish calm
a thunderstorm: lightning rain    cooking soup: pot vegetables       the end of a holiday: suitcase home
a broken clock: time repair       teaching a dog: treats command     a good night's sleep: bed rest
knitting a scarf: wool warm       a foggy road: slow lights          a birthday cake: candles sugar
"""
HELD_OUT_TOPICS = """
a lighthouse: coast ships         planting a tree: roots shovel      a crowded beach: waves towel
making tea: kettle leaves         a secret garden: gate flowers      the first day at work: desk nervous
a paper kite: wind string         an old photograph: memory frame    looking at stars: telescope sky
a farm in spring: lambs mud       fixing a bicycle: chain tools      a train station: platform ticket
a quiet evening: sofa book        picking berries: basket forest     a football match: goal team
a cat at home: purr milk
"""
ASKS = ("Write about {}.", "Tell me about {}.", "Describe {}.", "Say something about {}.")

COMBINATIONS = (
    ("words", "contains"),
    ("words", "contains", "begins"),
    ("words", "contains", "ends"),
    ("words", "contains", "sentences"),
    ("words", "contains", "items"),
)
HELD_OUT_COMBINATIONS = (
    ("words", "contains", "begins", "sentences"),
    ("words", "contains", "begins", "ends"),
    ("words", "begins", "sentences"),
    ("words", "items"),
)
WINDOWS = ((14, 24), (22, 36))
"""Least and most words, around the lengths of the model's own answers.

Neither shorter nor longer answers keep more: of pairs that keep unlike shares, the longer one keeps more in half. There
are two windows, so that no one length is right for all instructions.
"""
OPENINGS = ("Here is", "Many people", "In my view", "Every time")
CLOSINGS = ("the end", "thank you", "and that is all", "or so they say")
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}

SAYS = {
    "words": "Use {0[0]} to {0[1]} words.",
    "sentences": "Write exactly {0} sentence{1}.",
    "items": "Make a numbered list of exactly {0} item{1}.",
    "contains": 'Use the word "{0}".',
    "begins": 'Begin with "{0}".',
    "ends": 'End with "{0}".',
}
"""How an instruction asks for each kind of constraint."""


def read_topics(table: str) -> dict[str, list[str]]:
    """Return topic -> words that belong to it, of a table with topics two or more spaces apart."""
    cells = [cell.strip() for line in table.strip().splitlines() for cell in line.split("  ") if cell.strip()]
    return {topic: own.split() for topic, own in (cell.split(": ") for cell in cells)}


def draw_constraints(kinds: Sequence[str], own_words: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """Return a bound for each kind, at random."""
    sentences, items = rng.choice((1, 1, 2)), rng.choice((3, 4))
    bounds = {
        "words": list(rng.choice(WINDOWS)),
        "sentences": sentences,
        "items": items,
        "contains": rng.choice(own_words),
        "begins": rng.choice(OPENINGS),
        "ends": rng.choice(CLOSINGS),
    }
    return {kind: bounds[kind] for kind in kinds}


def say(kind: str, bound: Any) -> str:
    """Return the sentence that asks for a constraint."""
    several = "" if bound == 1 else "s"
    return SAYS[kind].format(NUMBERS[bound] if kind in ("sentences", "items") else bound, several)


def instruction(topic: str, constraints: Mapping[str, Any], rng: random.Random) -> str:
    """Return an instruction that asks for all constraints, in random order."""
    asked = [say(kind, bound) for kind, bound in constraints.items()]
    rng.shuffle(asked)
    return " ".join([rng.choice(ASKS).format(topic), *asked])


def instructions(size: int, held_out: bool, rng: random.Random) -> list[dict[str, str]]:
    """Return so many different prompts; each combination of constraints comes equally often, or once more."""
    topics = read_topics(HELD_OUT_TOPICS if held_out else TOPICS)
    combinations = HELD_OUT_COMBINATIONS if held_out else COMBINATIONS
    rows = dict[str, dict[str, str]]()
    while len(rows) < size:
        kinds = combinations[len(rows) % len(combinations)]
        topic = rng.choice(list(topics))
        constraints = draw_constraints(kinds, topics[topic], rng)
        prompt = instruction(topic, constraints, rng)
        rows.setdefault(prompt, {"prompt": prompt, "metadata": json.dumps(constraints)})
    return list(rows.values())


def write_instructions(folder: str | Path, seed: int = 0) -> None:
    """Write `prompts.jsonl` and `evaluation_prompts.jsonl` into a folder, each at once."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, size, held_out in (
        ("prompts.jsonl", PROMPTS, False),
        ("evaluation_prompts.jsonl", EVALUATION_PROMPTS, True),
    ):
        rows = instructions(size, held_out, random.Random(f"{seed}/{name}"))
        draft = folder / f".{name}-{os.getpid()}"
        draft.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        draft.replace(folder / name)
