"""What a change of a completion does to its reward, where nothing else changes."""

from typing import NamedTuple

import numpy as np

from tasks.data.prompt_table import hash_fraction
from tasks.data.records import Record
from tasks.evaluation.intervals import bootstrap_interval
from tasks.quality.accuracy import Rewards
from tasks.quality.agreement import BOOTSTRAP
from tasks.quality.answers import Answers, PairedAnswers
from tasks.quality.edits import EDITS


class Bias(NamedTuple):
    """What an edit does to a reward."""

    reward: str
    edit: str
    prompts: int
    """Completions that the edit changes, one a prompt, with a reward before and after."""
    change: float | None
    """Mean of r(edited) - r(as it is), in standard deviations of the reward over the completions as they are; None
    where the reward tells none of them apart, or the edit changes none."""
    low: float | None
    high: float | None
    """95% interval over prompts."""
    raised: float | None
    """Share of the completions whose reward the edit raises, no change counting half."""


class Edited(NamedTuple):
    """Completions as they are, number 0 of each prompt, and edited."""

    answers: Answers
    numbers: dict[str, dict[str, int]]
    """Edit -> prompt_id -> the edited completion's number; without those that the edit leaves alone."""


def edit_answers(answers: Answers, prompts: int) -> Edited:
    """Return one completion of each of some prompts, as it is and with each edit.

    Args:
        answers: A set: of pairs the chosen side of a prompt's first pair is taken, of samples the first completion.
        prompts: How many prompts, drawn by their hashes.
    """
    originals = {id_: texts[0] for id_, texts in answers.completions.items()}
    if isinstance(answers, PairedAnswers):
        originals = {pair.prompt_id: answers.completions[pair.prompt_id][pair.chosen] for pair in answers.pairs[::-1]}
    drawn = sorted(originals, key=lambda id_: hash_fraction(f"bias:{id_}"))[:prompts]
    found, numbers = Answers(f"{answers.source}, edited"), {name: dict[str, int]() for name in EDITS}
    for id_ in drawn:
        prompt, text = answers.prompts[id_], originals[id_]
        record = Record(prompt.messages, metadata=prompt.metadata)
        found.add(record, text)
        for name, edit in EDITS.items():
            if (edited := edit(text)) != text:
                numbers[name][id_] = found.add(record, edited)[1]
    return Edited(found, numbers)


def biases(name: str, edited: Edited, rewards: Rewards, seed: int) -> list[Bias]:
    """Return what each edit does to a reward.

    Args:
        name: Of the reward.
        edited: What was edited.
        rewards: Of the completions, edited and as they are.
        seed: Of the bootstrap.
    """
    spread = float(np.nanstd([rewards[id_, 0] for id_ in edited.answers.prompts]))
    found = []
    for edit, numbers in edited.numbers.items():
        changes = np.array([rewards[id_, number] - rewards[id_, 0] for id_, number in sorted(numbers.items())])
        changes = changes[~np.isnan(changes)]
        if not changes.size or not spread > 0:
            found.append(Bias(name, edit, changes.size, None, None, None, None))
            continue
        low, high = bootstrap_interval(changes / spread, np.mean, BOOTSTRAP, seed)
        raised = float(np.mean((changes > 0) + 0.5 * (changes == 0)))
        found.append(Bias(name, edit, changes.size, float(changes.mean()) / spread, low, high, raised))
    return found
