"""The benchmarks of a configuration, one after the other."""

from collections.abc import Mapping, Sequence

from tasks.benchmarks import mt_bench, refusals, win_rate
from tasks.benchmarks.answering import Answerer
from tasks.benchmarks.figures import Figure, Outcome, Resampling
from tasks.benchmarks.harness import NAME as HARNESS
from tasks.benchmarks.harness import check_same_tasks, harness_figures, harness_result
from tasks.benchmarks.material import Material, verdicts
from tasks.config.benchmarks import Benchmarks
from tasks.judges.judge import Judge
from tasks.pipeline.progress import Progress
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store


class Measuring:
    """Measures some policies."""

    def __init__(self, store: Store, config: Benchmarks, policies: Mapping[str, Artifact], material: Material) -> None:
        """Name the policies, and what they are measured on; nothing is asked yet.

        Args:
            store: Keeps answers, verdicts and lm-eval's results.
            config: Which benchmarks.
            policies: Name -> a model.
            material: What the benchmarks' files hold.
        """
        self.store, self.config, self.policies, self.material = store, config, policies, material
        self.by = Resampling(config.bootstrap_samples, config.seed)
        self.answerers = {
            name: Answerer(store, policy, config.sampling, material.system) for name, policy in policies.items()
        }
        self.results: dict[str, str] = {}
        """Folder -> digest of each result of lm-eval."""
        self.expected = sum(verdicts(config, material, len(policies)).values())
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
        """Return what holds the answers and lm-eval's results, folder -> digest, for `prune` to spare."""
        return self.results | {folder: own for each in self.answerers.values() for folder, own in each.parts.items()}

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
                refusals.outcome(name, kind, prompts, each.answer_alike(prompts))
                for kind, prompts in self.material.refusals.items()
                for name, each in self.answerers.items()
            ]
        )

    def _harness(self) -> Outcome | None:
        config, tasks = self.config.lm_eval, self.material.lm_eval
        if config is None or tasks is None:
            return None
        check_same_tasks(config, tasks)
        figures: list[Figure] = []
        for name, policy in self.policies.items():
            result = harness_result(self.store, name, policy, config, tasks)
            self.results[self.store.folder_of(result)] = result.digest
            figures += harness_figures(name, result)
        return Outcome(figures, [], [])


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return several outcomes as one."""
    return Outcome(
        [each for outcome in outcomes for each in outcome.figures],
        [each for outcome in outcomes for each in outcome.answers],
        [note for outcome in outcomes for note in outcome.notes],
    )
