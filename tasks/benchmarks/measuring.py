"""The benchmarks of a configuration, one after the other; what they need is read and checked before any is asked."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.benchmarks import mt_bench, refusals, win_rate
from tasks.benchmarks.answering import Answerer
from tasks.benchmarks.figures import Outcome, Resampling
from tasks.benchmarks.harness import NAME as HARNESS
from tasks.benchmarks.harness import harness_figures, harness_version
from tasks.benchmarks.mt_bench_files import MtBench, read_mt_bench
from tasks.benchmarks.settings import BenchmarksConfig
from tasks.benchmarks.win_rate import Instruction, read_instructions
from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.conversations import Messages
from tasks.data.tally import Tally, read_records
from tasks.judges.judge import Judge
from tasks.pipeline.progress import Progress
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store


class Material(NamedTuple):
    """What the files of a configuration hold."""

    mt_bench: MtBench | None
    instructions: list[Instruction]
    refusals: dict[str, list[Messages]]
    """Kind of prompts, `harmful` and `harmless` -> prompts."""


def read_material(config: BenchmarksConfig) -> Material:
    """Read the files that the benchmarks need.

    Raises:
        ConfigurationError: One cannot be read, or lacks something; or lm-eval is not installed.
    """
    given = {} if config.refusals is None else {name: getattr(config.refusals, name) for name in refusals.LABELS}
    if config.lm_eval is not None:
        harness_version(config.lm_eval)
    return Material(
        None if config.mt_bench is None else read_mt_bench(config.mt_bench),
        [] if config.win_rate is None else read_instructions(config.win_rate),
        {kind: _prompts(kind, source) for kind, source in given.items() if source is not None},
    )


def questions(config: BenchmarksConfig, material: Material) -> dict[str, int]:
    """Return how many verdicts each benchmark needs of the judge, those that it has given before included."""
    policies, found = len(config.names()), dict[str, int]()
    if material.mt_bench is not None:
        found[mt_bench.NAME] = 2 * len(material.mt_bench.questions) * (policies + len(material.mt_bench.answers))
    if config.win_rate is not None:
        found[win_rate.NAME] = 2 * len(material.instructions) * (policies - (config.win_rate.against is not None))
    return found


class Measuring:
    """Measures some policies."""

    def __init__(self, store: Store, config: BenchmarksConfig, policies: Mapping[str, Artifact]) -> None:
        """Read the material, and check that every prompt leaves room for an answer.

        Raises:
            ConfigurationError: See `read_material` and `Answerer.check_room`.
        """
        self.store, self.config, self.policies = store, config, policies
        self.material, self.by = read_material(config), Resampling(config.bootstrap_samples, config.seed)
        self.answerers = {
            name: Answerer(store, policy, config.sampling, config.system_prompt) for name, policy in policies.items()
        }
        self._check_room()
        self.expected = sum(questions(config, self.material).values())
        self.judge = None if config.judge is None else Judge(config.judge, store, self.expected)
        self.progress = Progress(f"asking judge {config.judge.model}", self.expected) if config.judge else None

    def outcomes(self) -> dict[str, Outcome]:
        """Return what each benchmark comes to.

        Raises:
            ConfigurationError: The judge cannot be asked, or lm-eval has failed.
        """
        made = {
            mt_bench.NAME: self._mt_bench(),
            win_rate.NAME: self._win_rate(),
            refusals.NAME: self._refusals(),
            HARNESS: self._harness(),
        }
        if self.progress is not None:
            self.progress.close()
        return {name: outcome for name, outcome in made.items() if outcome is not None}

    def parts(self) -> dict[str, str]:
        """Return the parts of tables that hold the answers, folder -> digest, for `prune` to spare."""
        return {folder: digest for each in self.answerers.values() for folder, digest in each.parts.items()}

    def _check_room(self) -> None:
        longest = self.config.sampling.max_new_tokens
        asked = [each.messages for each in self.material.instructions]
        asked += [messages for prompts in self.material.refusals.values() for messages in prompts]
        two = (
            [mt_bench.second_turn(each, "") for each in self.material.mt_bench.questions]
            if self.material.mt_bench
            else []
        )
        for answerer in self.answerers.values():
            answerer.check_room(asked, longest)
            answerer.check_room(two, 2 * longest)

    def _told(self, verdict: object) -> None:
        if self.progress is not None:
            self.progress.advance(1)

    def _mt_bench(self) -> Outcome | None:
        bench = self.material.mt_bench
        if bench is None or self.judge is None:
            return None
        answers = {
            name: mt_bench.answer_questions(bench.questions, each.answer) for name, each in self.answerers.items()
        }
        answers |= bench.answers
        ratings = {name: mt_bench.rate(self.judge, bench, own, name, self._told) for name, own in answers.items()}
        return mt_bench.outcome(bench, answers, ratings, self.by)

    def _win_rate(self) -> Outcome | None:
        if self.config.win_rate is None or self.judge is None:
            return None
        asked, against = self.material.instructions, self.config.win_rate.against
        prompts = [each.messages for each in asked]
        answers = {name: each.answer_alike(prompts) for name, each in self.answerers.items()}
        theirs = [each.reference or "" for each in asked] if against is None else answers.pop(against)
        made = []
        for name, ours in answers.items():
            rows = list(zip(prompts, ours, theirs, strict=True))
            wins = self.judge.compare(rows, tell=self._told)
            made.append(win_rate.outcome(name, asked, (ours, theirs), wins, self.by))
        return joined(made)

    def _refusals(self) -> Outcome | None:
        if self.config.refusals is None:
            return None
        return joined(
            [
                refusals.outcome(name, kind, prompts, each.answer_alike(prompts), self.by)
                for kind, prompts in self.material.refusals.items()
                for name, each in self.answerers.items()
            ]
        )

    def _harness(self) -> Outcome | None:
        config = self.config.lm_eval
        if config is None:
            return None
        found = [harness_figures(self.store, name, policy, config) for name, policy in self.policies.items()]
        return Outcome([figure for own in found for figure in own], [], [])


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return several outcomes as one."""
    return Outcome(
        [each for outcome in outcomes for each in outcome.figures],
        [each for outcome in outcomes for each in outcome.answers],
        [note for outcome in outcomes for note in outcome.notes],
    )


def _prompts(kind: str, source: DataSource) -> list[Messages]:
    tally = Tally(f"refusals.{kind}", 0.0)
    found = [record.messages for _, record in read_records(source, "prompts", tally)]
    tally.check()
    if not found:
        raise ConfigurationError(f"refusals.{kind} = {source.path!r} has no rows: name another file")
    return found
