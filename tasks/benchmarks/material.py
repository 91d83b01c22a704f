"""What the files of benchmarks hold: read and checked once, and kept in the store, so that a worker needs no files."""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import TypeAdapter

from tasks.benchmarks import mt_bench, refusals, win_rate
from tasks.benchmarks.answering import check_room
from tasks.benchmarks.harness import tasks_in_question
from tasks.benchmarks.mt_bench_files import MtBench, read_mt_bench
from tasks.benchmarks.win_rate import Instruction, read_instructions
from tasks.config.benchmarks import Benchmarks
from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.conversations import Messages
from tasks.data.tally import Tally, read_records
from tasks.store.artifacts import Artifact
from tasks.store.manifests import read_bytes

FILE = "questions.json"


class Material(NamedTuple):
    """What policies are asked, and what their answers are judged by."""

    system: str | None
    """System message before conversations that have none."""
    mt_bench: MtBench | None
    instructions: list[Instruction]
    refusals: dict[str, list[Messages]]
    """Kind of prompts, `harmful` and `harmless` -> prompts."""
    lm_eval: dict[str, str | None] | None
    """What decides lm-eval's results beside its settings: its version, and a hash of the tasks of one's own."""

    def conversations(self, most: int) -> Iterable[tuple[Messages, int]]:
        """Yield what is asked, each with the tokens that answers may take, of `most` each."""
        for question in () if self.mt_bench is None else self.mt_bench.questions:
            yield mt_bench.second_turn(question, ""), 2 * most
        for instruction in self.instructions:
            yield instruction.messages, most
        for prompts in self.refusals.values():
            yield from ((messages, most) for messages in prompts)


JSON = TypeAdapter(Material)


def read_material(config: Benchmarks, system: str | None = None) -> Material:
    """Read the files that the benchmarks need.

    Args:
        config: Which benchmarks.
        system: System message of conversations that have none, where the benchmarks have no other.

    Raises:
        ConfigurationError: One cannot be read, or lacks something; or lm-eval is not installed.
    """
    given = {} if config.refusals is None else {name: getattr(config.refusals, name) for name in refusals.LABELS}
    return Material(
        config.system_prompt or system,
        None if config.mt_bench is None else read_mt_bench(config.mt_bench),
        [] if config.win_rate is None else read_instructions(config.win_rate),
        {kind: _prompts(kind, source) for kind, source in given.items() if source is not None},
        None if config.lm_eval is None else tasks_in_question(config.lm_eval),
    )


def stored_material(material: Artifact) -> Material:
    """Return what was kept in the store."""
    return JSON.validate_json(read_bytes(material, FILE))


def check_all_fit(config: Benchmarks, material: Material, policies: Iterable[Artifact]) -> None:
    """Refuse questions that leave a policy too little room for an answer.

    Raises:
        ConfigurationError: Names the first one and the setting to lower.
    """
    most = config.sampling.max_new_tokens
    for policy in policies:
        check_room(policy, material.conversations(most), material.system, most)


def verdicts(config: Benchmarks, material: Material, policies: int) -> dict[str, int]:
    """Return how many verdicts each benchmark needs of the judge, those that it has given before included."""
    found = dict[str, int]()
    if material.mt_bench is not None:
        found[mt_bench.NAME] = 2 * len(material.mt_bench.questions) * (policies + len(material.mt_bench.answers))
    if config.win_rate is not None:
        found[win_rate.NAME] = 2 * len(material.instructions) * (policies - (config.win_rate.against is not None))
    return found


def _prompts(kind: str, source: DataSource) -> list[Messages]:
    tally = Tally(f"refusals.{kind}", 0.0)
    found = [record.messages for _, record in read_records(source, "prompts", tally)]
    tally.check()
    if not found:
        raise ConfigurationError(f"refusals.{kind} = {source.path!r} has no rows: name another file")
    return found
