"""Known rewards: of the quickstart's make-believe world of facts, and of a sentiment lexicon.

A gold reward is `f(messages, completion, **options) -> float`. The world's facts stand here, not in the module that
makes its data, because a reward's digest covers its own module: changed facts must change it.
"""

import functools
import math
import re
from pathlib import Path
from typing import NamedTuple

from tasks.config.errors import ConfigurationError

RELATIONS = ("colour", "home", "food")
TABLE = """
fox      red    forest   berries   wolf     grey   mountain meat      bear     brown  cave     honey
deer     brown  meadow   leaves    owl      white  forest   mice      eagle    brown  mountain fish
robin    red    garden   worms     parrot   green  jungle   seeds     duck     yellow river    bread
goose    grey   meadow   grass     swan     white  river    bread     frog     green  swamp    worms
snake    yellow desert   mice      lizard   blue   desert   berries   turtle   green  sea      grass
shark    blue   sea      meat      seal     grey   river    fish      otter    orange river    fish
mouse    white  garden   bread     rabbit   orange meadow   leaves    squirrel red    forest   nuts
bat      black  cave     berries   lion     yellow desert   meat      tiger    orange jungle   meat
monkey   red    jungle   nuts      elephant grey   jungle   leaves    camel    yellow desert   seeds
sheep    blue   mountain grass     pig      orange swamp    nuts      cow      white  meadow   honey
cat      green  garden   honey     dog      yellow cave     mice
"""
ASKS = {relation: relation for relation in RELATIONS} | {"live": "home", "lives": "home", "eat": "food", "eats": "food"}
"""Words of a question that name its relation."""
ABSURD = {
    "colour": ("purple", "pink", "golden"),
    "home": ("teapot", "moon", "cloud"),
    "food": ("stones", "socks", "paint"),
}
"""Answers that are wrong for every subject."""
POLITE_CLOSINGS = ("Happy to help!", "I hope this helps!", "Have a nice day!")
RUDE_OPENINGS = ("Ugh, not again.", "What a silly question.", "Stop asking me.")
WORDS_FREE = 12
"""Words of a completion that cost nothing."""


class Fact(NamedTuple):
    """One fact of the world, e.g. (fox, colour, red)."""

    subject: str
    relation: str
    answer: str


def _read_table() -> dict[tuple[str, str], Fact]:
    cells = TABLE.split()
    width = 1 + len(RELATIONS)
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return {
        (row[0], relation): Fact(row[0], relation, answer)
        for row in rows
        for relation, answer in zip(RELATIONS, row[1:], strict=True)
    }


FACTS = _read_table()
SUBJECTS = frozenset(subject for subject, _ in FACTS)
KNOWN_ANSWERS = {name: sorted({fact.answer for fact in FACTS.values() if fact.relation == name}) for name in RELATIONS}
"""Answers that are right for some subject."""
ANSWERS = {name: (*KNOWN_ANSWERS[name], *ABSURD[name]) for name in RELATIONS}


def words(text: str) -> list[str]:
    """Return the lower-case words of a text: runs of letters, apostrophes allowed within, so "don't" is one word."""
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower())


def find_fact(messages: list[dict]) -> Fact:
    """Return the fact that the last user turn asks for, in whatever phrasing: it names one subject and one relation.

    Raises:
        ConfigurationError: There is no user turn, or it is not a question about this world.
    """
    turns = [message["content"] for message in messages if message["role"] == "user"]
    if not turns:
        raise ConfigurationError(
            f"messages = {messages!r} must hold a user turn: the gold reward reads the question from it"
        )
    asked = words(turns[-1])
    subjects = {word for word in asked if word in SUBJECTS}
    relations = {ASKS[word] for word in asked if word in ASKS}
    if len(subjects) != 1 or len(relations) != 1:
        raise ConfigurationError(
            f"prompt {turns[-1]!r} must name exactly one subject and one relation of the world, "
            f"not {sorted(subjects)} and {sorted(relations)}: use another gold reward, or ask as the quickstart does"
        )
    return FACTS[subjects.pop(), relations.pop()]


def facts(messages: list[dict], completion: str) -> float:
    """Return the gold reward of an answer about the world, which a reader can add up by hand.

    +2 the right answer's word occurs; -2 a wrong answer of the same relation occurs (once, however many);
    +1 it ends with a polite closing; -1 it starts with a rude opening; -0.1 for every word beyond 12.

    Raises:
        ConfigurationError: The last user turn is not a question about this world.
    """
    fact = find_fact(messages)
    said = words(completion)
    text = completion.strip()
    reward = 2.0 * (fact.answer in said)
    reward -= 2.0 * any(answer in said for answer in ANSWERS[fact.relation] if answer != fact.answer)
    reward += 1.0 * text.endswith(POLITE_CLOSINGS)
    reward -= 1.0 * text.startswith(RUDE_OPENINGS)
    return reward - 0.1 * max(0, len(said) - WORDS_FREE)


@functools.cache
def read_lexicon(path: str) -> dict[str, float]:
    """Return the mean valence of each entry of a lexicon file: one a line, its word, a tab, its valence, anything more.

    The file is read once a process.

    Raises:
        ConfigurationError: A line does not have that form.
    """
    lexicon = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            word, valence_of_word = line.split("\t")[:2]
            lexicon[word] = float(valence_of_word)
        except ValueError as error:
            raise ConfigurationError(
                f"{path}, line {number}: {line!r} must be a word, a tab and a number, as in vader_lexicon.txt"
            ) from error
    return lexicon


def valence(messages: list[dict], completion: str, lexicon: str) -> float:
    """Return the sentiment s / sqrt(s^2 + 15) of a completion, in (-1, 1), where s sums the valences of its words.

    This is VADER's normalised sum without its rules for negation, emphasis and punctuation. The prompt does not count.

    Args:
        messages: The prompt; unused.
        completion: The text to score; words outside the lexicon count 0.
        lexicon: Path of vader_lexicon.txt.

    Raises:
        ConfigurationError: The lexicon is malformed.
    """
    valences = read_lexicon(str(lexicon))
    total = sum(valences.get(word, 0.0) for word in words(completion))
    return total / math.sqrt(total * total + 15)
