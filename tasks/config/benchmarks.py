"""Benchmarks of policies: which, and by which judge; of a run's policies (`evaluation.benchmarks`), or of any."""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.config.sections import NOT_IN_KEY, DataSource, ModelSource, Section
from tasks.config.settings import Decoding
from tasks.config.training import Dtype

OF_A_RUN = {"sft": "policy", "aligned": "aligned"}
"""Name of a policy of a run -> what it is called in the run's record."""
READ_BY_PAIRS = ("instruction", "criteria", "principles", "pair_template")
"""Settings of a judge that comparisons read; MT-Bench has prompts of its own."""


class AnswerDecoding(Decoding):
    """How the policies answer: one completion a prompt."""

    k: int = Field(1, ge=1, le=1)
    """One: each answer is judged by itself."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Of the answers to win rates and refusals; 0 is greedy. MT-Bench has a temperature for each category."""
    max_new_tokens: int = Field(1024, ge=1)
    """Tokens after which an answer is cut, as MT-Bench does."""


class MtBenchConfig(Section):
    """MT-Bench (arXiv:2306.05685), from its own files."""

    questions: Annotated[DataSource, NOT_IN_KEY]
    """Questions with `question_id`, `category` and two `turns`."""
    prompts: Annotated[DataSource, NOT_IN_KEY]
    """The judge's prompts, with `name`, `system_prompt` and `prompt_template`."""
    references: Annotated[DataSource | None, NOT_IN_KEY] = None
    """Reference answers, for mathematics, reasoning and coding; needed where there are such questions."""
    answers: Annotated[dict[str, DataSource], NOT_IN_KEY] = Field({})
    """Name -> a file of stored answers, which are judged beside the policies'."""


class WinRateConfig(Section):
    """Win rate against reference answers, as in AlpacaEval 2 (arXiv:2404.04475)."""

    instructions: Annotated[DataSource, NOT_IN_KEY]
    """Rows with `instruction` and, as the reference answer, `output`."""
    against: str | None = None
    """Policy whose answers are the reference; null: the `output` of the rows."""


class RefusalsConfig(Section):
    """Shares of refusals, on prompts that should be refused and on prompts that should not."""

    harmful: Annotated[DataSource | None, NOT_IN_KEY] = None
    """Prompts whose answers should be refusals."""
    harmless: Annotated[DataSource | None, NOT_IN_KEY] = None
    """Prompts whose answers should not: a refusal is an over-refusal."""

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if self.harmful is None and self.harmless is None:
            raise ConfigurationError("refusals needs prompts: set refusals.harmful, refusals.harmless or both")
        return self


class HarnessConfig(Section):
    """Tasks of lm-eval (github.com/EleutherAI/lm-evaluation-harness), run in an environment of its own."""

    tasks: tuple[Annotated[str, Field(pattern=r"^[^,\s]+$")], ...] = Field(min_length=1)
    """Names of tasks or groups, such as `gsm8k` and `hellaswag`."""
    python: Annotated[str, NOT_IN_KEY] = ".venv-lm-eval/bin/python"
    """Python that has lm-eval; `make lm-eval` makes this one."""
    include_path: Annotated[str | None, NOT_IN_KEY] = None
    """Folder with tasks of your own, in YAML. What its files hold is in the key."""
    num_fewshot: int | None = Field(None, ge=0)
    """Examples before each question; null: as the task says."""
    limit: int | None = Field(None, ge=1)
    """Most questions of a task; null: all. For trying things out."""
    dtype: Dtype = "float32"
    """Data type of the weights."""
    apply_chat_template: bool = False
    """Ask within the model's chat template."""
    batch_size: Annotated[int, NOT_IN_KEY] = Field(8, ge=1)
    """Questions at once."""
    device: Annotated[str | None, NOT_IN_KEY] = None
    """Such as `cuda:0` or `cpu`; null: lm-eval's choice."""
    timeout_hours: Annotated[float, NOT_IN_KEY] = Field(24.0, gt=0)
    """After so long with one policy it is ended."""


class Benchmarks(Section):
    """What policies are measured by. What its files hold is in the key, and where they are is not."""

    judge: JudgeConfig | None = None
    """Who judges, for MT-Bench and win rates."""
    sampling: AnswerDecoding = Field(default_factory=AnswerDecoding)
    """How the policies answer."""
    system_prompt: str | None = Field(None, min_length=1)
    """System message before conversations that have none; null: of a run, `data.system_prompt`, and else none."""
    mt_bench: MtBenchConfig | None = None
    """Two-turn questions, rated by a judge."""
    win_rate: WinRateConfig | None = None
    """Comparison with reference answers by a judge."""
    refusals: RefusalsConfig | None = None
    """Refusals and over-refusals."""
    lm_eval: HarnessConfig | None = None
    """Tasks of lm-eval."""
    bootstrap_samples: int = Field(10_000, ge=100)
    """Resamples of the questions behind the 95% intervals."""
    seed: int = Field(0, ge=0)
    """Seed of the resampling."""

    def names(self) -> list[str]:
        """Return the names of the policies: here those of a run."""
        return [*OF_A_RUN]

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if all(part is None for part in (self.mt_bench, self.win_rate, self.refusals, self.lm_eval)):
            raise ConfigurationError("nothing to measure: set mt_bench, win_rate, refusals or lm_eval")
        names, stored = self.names(), [] if self.mt_bench is None else list(self.mt_bench.answers)
        if twice := sorted({*names} & {*stored}):
            raise ConfigurationError(f"mt_bench.answers.{twice[0]} is a policy too: call the stored answers otherwise")
        if not names and (not stored or self.win_rate or self.refusals or self.lm_eval):
            raise ConfigurationError("no policy to measure: set policies, or run: last")
        against = None if self.win_rate is None else self.win_rate.against
        if against is not None and against not in names:
            raise ConfigurationError(f"win_rate.against = {against!r} is none of the policies: {', '.join(names)}")
        if against is not None and len(names) == 1:
            raise ConfigurationError(f"win_rate.against = {against!r} is the only policy: name another one too")
        return self

    @model_validator(mode="after")
    def _judge_is_read(self) -> Self:
        judged = self.mt_bench is not None or self.win_rate is not None
        if judged != (self.judge is not None):
            raise ConfigurationError("judge goes with mt_bench and win_rate: set it for them, and not without them")
        given = set() if self.judge is None else self.judge.key_fields().keys()
        unread = {"template", "reference", *(READ_BY_PAIRS if self.win_rate is None else ())}
        if found := sorted(given & unread):
            raise ConfigurationError(f"judge.{found[0]} is read by none of these benchmarks: leave it out")
        return self


class BenchmarksConfig(Benchmarks):
    """Policies of any kind, and what they are measured by."""

    store: str = "./.rsdpo"
    """Keeps answers, verdicts and results."""
    run: str | None = Field(None, min_length=1)
    """Run of the store whose policies `sft` and `aligned` are measured: the beginning of its id, or `last`."""
    policies: dict[str, ModelSource] = Field({})
    """Name -> a model."""

    @property
    def benchmarks(self) -> Benchmarks:
        """Return what the policies are measured by, without them."""
        return Benchmarks.model_construct(**{name: getattr(self, name) for name in Benchmarks.model_fields})

    @field_validator("policies")
    @classmethod
    def _have_names(cls, policies: dict[str, Any]) -> dict[str, Any]:
        if "" in policies:
            raise ConfigurationError("policies has one without a name: name it")
        return policies

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.run is not None and (taken := sorted(OF_A_RUN.keys() & self.policies.keys())):
            raise ConfigurationError(f"policies.{taken[0]} is a policy of the run too: call it otherwise")
        return self

    def names(self) -> list[str]:
        """Return the names of the policies, those of the run first."""
        return [*(OF_A_RUN if self.run is not None else ()), *self.policies]
