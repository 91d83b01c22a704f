"""MT-Bench's files, as FastChat has them: questions, the judge's prompts, reference answers, stored answers."""

import string
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.config.benchmarks import MtBenchConfig
from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.sources import read_rows

Turns = tuple[str, str]
WITH_REFERENCE = ("math", "reasoning", "coding")
"""Categories that are judged beside a reference answer (FastChat, `NEED_REF_CATS`)."""
PROMPTS = {
    "single-v1": {"question", "answer"},
    "single-math-v1": {"question", "answer", "ref_answer_1"},
    "single-v1-multi-turn": {"question_1", "answer_1", "question_2", "answer_2"},
    "single-math-v1-multi-turn": {"question_1", "answer_1", "question_2", "answer_2", "ref_answer_1", "ref_answer_2"},
}
"""The judge's prompts that are read, and their placeholders."""


class MtQuestion(NamedTuple):
    """A question of two turns."""

    id: str
    category: str
    turns: Turns
    references: Turns | None
    """Of the categories that have reference answers."""


class JudgePrompt(NamedTuple):
    """What a judge is told."""

    system: str
    template: str


class MtBench(NamedTuple):
    """All that the files hold."""

    questions: list[MtQuestion]
    prompts: dict[str, JudgePrompt]
    answers: dict[str, dict[str, Turns]]
    """Name -> question -> stored answers."""


def read_mt_bench(config: MtBenchConfig) -> MtBench:
    """Read the files.

    Raises:
        ConfigurationError: A file cannot be read, lacks a question, a prompt, a reference or an answer, or has
            something else in a row than it should.
    """
    references = {} if config.references is None else _turns_of(config.references)
    questions = _questions(config, references)
    answers = {name: _turns_of(source) for name, source in config.answers.items()}
    for name, own in answers.items():
        if missing := [each.id for each in questions if each.id not in own]:
            raise ConfigurationError(
                f"mt_bench.answers.{name} has no answer to {len(missing)} of {len(questions)} questions, such as "
                f"{missing[0]}: name a file with all"
            )
    return MtBench(questions, _prompts(config.prompts), answers)


def _questions(config: MtBenchConfig, references: Mapping[str, Turns]) -> list[MtQuestion]:
    found: dict[str, MtQuestion] = {}
    for where, row in read_rows(config.questions):
        id_, category = str(_given(row, "question_id", where)), str(_given(row, "category", where))
        _check_once(found, id_, f"{where}: question")
        needs = category in WITH_REFERENCE
        if needs and id_ not in references:
            raise ConfigurationError(
                f"{where}: question {id_} ({category}) is judged beside a reference answer, and mt_bench.references "
                "has none: name the file of reference answers"
            )
        turns = _two(_given(row, "turns", where), where)
        found[id_] = MtQuestion(id_, category, turns, references[id_] if needs else None)
    if not found:
        raise ConfigurationError(f"mt_bench.questions = {config.questions.path!r} has no rows: name another file")
    return list(found.values())


def _prompts(source: DataSource) -> dict[str, JudgePrompt]:
    found: dict[str, JudgePrompt] = {}
    for where, row in read_rows(source):
        if (name := row.get("name")) in PROMPTS:
            _check_once(found, name, f"{where}: prompt")
            found[name] = JudgePrompt(str(row.get("system_prompt") or ""), str(_given(row, "prompt_template", where)))
            _check_placeholders(found[name].template, PROMPTS[name], f"{where}: prompt {name}")
    if missing := sorted(PROMPTS.keys() - found):
        raise ConfigurationError(
            f"mt_bench.prompts = {source.path!r} lacks {missing[0]}: name MT-Bench's judge_prompts.jsonl"
        )
    return found


def _check_placeholders(template: str, wanted: set[str], where: str) -> None:
    try:
        names = {name for _, name, *_ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}; write '{{{{' and '}}}}' for braces") from error
    if names != wanted:
        raise ConfigurationError(
            f"{where} has the placeholders {', '.join(sorted(names)) or '(none)'}, and needs "
            f"{', '.join(sorted(wanted))}: take MT-Bench's own"
        )


def _turns_of(source: DataSource) -> dict[str, Turns]:
    """Return the two turns of each answer in a file; of several choices, the first counts, as in FastChat."""
    found: dict[str, Turns] = {}
    for where, row in read_rows(source):
        choices = _given(row, "choices", where)
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ConfigurationError(f"{where}: choices must be a list that begins with one of two turns: mend the row")
        id_ = str(_given(row, "question_id", where))
        _check_once(found, id_, f"{where}: question")
        found[id_] = _two(choices[0].get("turns"), where)
    return found


def _check_once(found: Mapping[str, Any], name: str, what: str) -> None:
    if name in found:
        raise ConfigurationError(f"{what} {name} is there twice: leave one out")


def _two(turns: Any, where: str) -> Turns:
    if not isinstance(turns, list) or len(turns) != 2 or not all(isinstance(turn, str) for turn in turns):
        raise ConfigurationError(f"{where}: turns must be a list of two texts, not {str(turns)[:60]!r}: mend the row")
    return turns[0], turns[1]


def _given(row: Mapping[str, Any], name: str, where: str) -> Any:
    if row.get(name) in (None, ""):
        raise ConfigurationError(f"{where} has no {name}: it is needed, mend the row or name another file")
    return row[name]
