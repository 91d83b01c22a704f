"""The section of a judge: a language model behind an OpenAI-compatible endpoint that rates answers or compares them."""

import re
import string
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tasks.config.errors import ConfigurationError
from tasks.config.sections import NOT_IN_KEY, Section

LOWEST, HIGHEST = 1, 10
"""Ends of the scale of a rating."""
_NAME = re.compile(r"\w[\w \-]*")


def _text_of(value: Any) -> Any:
    """Return the text of a file where one is named, so that the text is in the key and travels to workers."""
    if not isinstance(value, dict) or value.keys() != {"file"}:
        return value
    try:
        return Path(str(value["file"])).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{value['file']} cannot be read ({error}): name a text file in UTF-8") from error


def _list_of(value: Any) -> Any:
    """Return the list of a YAML file where one is named; an item that is a plain text has the first priority."""
    if (text := _text_of(value)) is not value:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"the file of principles is no YAML: {error}") from error
    return [{"text": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


Template = Annotated[str, StringConstraints(min_length=1), BeforeValidator(_text_of)]
"""A text with placeholders, or `{file: PATH}`."""


class Criterion(Section):
    """What a rating is given for."""

    description: str = Field(min_length=1)
    """What the judge is told about it."""
    weight: float = Field(1.0, gt=0)
    """Share of the reward, relative to the other criteria."""


class Principle(Section):
    """A sentence by which two answers are compared."""

    text: str = Field(min_length=1)
    """What the better answer does, such as `The answer does no harm.`"""
    priority: int = Field(1, ge=1)
    """1 comes first. Where principles disagree, those of the first priority that does not end in a tie decide."""


class JudgeConfig(Section):
    """A judge and what it is asked."""

    PLACEHOLDERS: ClassVar[frozenset[str]] = frozenset({"conversation", "question", "rubric", "reference", "format"})

    model: str = Field(min_length=1)
    """Name of the model, as the endpoint knows it."""
    version: str = ""
    """Any text. In the key beside the name, for endpoints whose name does not pin a version: another text asks anew."""
    base_url: Annotated[str, NOT_IN_KEY] = Field(pattern=r"^https?://[^/?#\s]+[^?#\s]*$")
    """Where the endpoint is, such as `http://127.0.0.1:8400/v1`. A loopback address is asked without a proxy."""
    api_key_variable: Annotated[str | None, NOT_IN_KEY] = "OPENAI_API_KEY"
    """Environment variable that holds the key; null: the endpoint wants none. The key itself never stands here."""
    instruction: str | None = Field(None, min_length=1)
    """What makes an answer good, in a few sentences; one rating. Null: the default, or `criteria`."""
    criteria: dict[str, Criterion] = Field({})
    """Name -> what is rated by itself; the reward is the mean of the ratings by weight."""
    principles: Annotated[tuple[Principle, ...], BeforeValidator(_list_of)] = ()
    """By which pairs are compared, one verdict each, and answers revised: a list, or `{file: PATH}` of one in YAML."""
    template: Template | None = None
    """What asks for a rating, with `{answer}` and others of docs/judges.md; or `{file: PATH}`. Null: the default."""
    pair_template: Template | None = None
    """What asks which answer is better, with `{answer_a}` and `{answer_b}`; or `{file: PATH}`. Null: the default."""
    reference: bool = False
    """Show the prompt's reference answer, where it has one."""
    temperature: float | None = Field(0.0, ge=0, le=2)
    """Null: the endpoint's own, for models that take none."""
    max_answer_tokens: int = Field(1024, ge=1)
    """Tokens after which an answer is cut."""
    seed: int | None = 0
    """Sent with each request; null: none is."""
    limit_parameter: Annotated[str, NOT_IN_KEY] = Field("max_tokens", pattern=r"^max_(completion_)?tokens$")
    """What the endpoint calls the most tokens of an answer: OpenAI's reasoning models want `max_completion_tokens`."""
    concurrency: Annotated[int, NOT_IN_KEY] = Field(8, ge=1, le=1024)
    """Requests under way at once."""
    timeout_seconds: Annotated[float, NOT_IN_KEY] = Field(120.0, gt=0)
    """From sending a request to the last byte of its answer."""
    retries: Annotated[int, NOT_IN_KEY] = Field(6, ge=0, le=20)
    """How often a request is sent again after 429, a server error, a timeout or a lost connection."""
    budget_tokens: Annotated[int | None, NOT_IN_KEY] = Field(None, ge=1)
    """Most tokens, of prompts and answers, that one stage may use; null: no limit. What the store has costs nothing."""
    budget_cost: Annotated[float | None, NOT_IN_KEY] = Field(None, gt=0)
    """Most money that one stage may spend, in the currency of the prices; null: no limit."""
    price_per_million_input: Annotated[float | None, NOT_IN_KEY] = Field(None, ge=0)
    """Price of a million tokens of prompts."""
    price_per_million_output: Annotated[float | None, NOT_IN_KEY] = Field(None, ge=0)
    """Price of a million tokens of answers."""
    max_unreadable: Annotated[float, NOT_IN_KEY] = Field(0.05, ge=0, le=1)
    """Share of the verdicts that may stay unreadable, after a second time of asking; above it the stage fails."""

    @model_validator(mode="before")
    @classmethod
    def _names_a_variable(cls, values: Any) -> Any:
        """Refuse what looks like a key, and do not repeat it."""
        name = values.get("api_key_variable") if isinstance(values, dict) else None
        if name is None or re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", str(name)):
            return values
        problem = PydanticCustomError(
            "variable", "must be the name of an environment variable, in capitals, that holds the key; never a key"
        )
        details = InitErrorDetails(type=problem, loc=("api_key_variable",), input="***")
        raise ValidationError.from_exception_data(cls.__name__, [details])

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        try:
            _ = urlsplit(url).port
        except ValueError as error:
            raise ConfigurationError(
                f"judge.base_url = {url!r}: {error}; write one like http://host:8400/v1"
            ) from error
        return url

    @field_validator("criteria")
    @classmethod
    def _names_are_told_apart(cls, criteria: dict[str, Criterion]) -> dict[str, Criterion]:
        if bad := [name for name in criteria if not _NAME.fullmatch(name)]:
            raise ConfigurationError(f"criterion {bad[0]!r} must have a name of letters, digits, spaces, '_' and '-'")
        if len({name.lower() for name in criteria}) < len(criteria):
            raise ConfigurationError(f"criteria {sorted(criteria)} must differ in more than capitals")
        return criteria

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if sum((self.instruction is not None, bool(self.criteria), bool(self.principles))) > 1:
            raise ConfigurationError(
                "set one of judge.instruction, judge.criteria and judge.principles: each says it all"
            )
        if self.principles and self.template is not None:
            raise ConfigurationError("judge.template rates, and judge.principles compare: set judge.pair_template")
        prices = (self.price_per_million_input, self.price_per_million_output)
        if self.budget_cost is not None and None in prices:
            raise ConfigurationError(
                f"judge.budget_cost = {self.budget_cost:g} needs judge.price_per_million_input and "
                "judge.price_per_million_output"
            )
        self._check_template("template", self.template, {"answer"})
        self._check_template("pair_template", self.pair_template, {"answer_a", "answer_b"})
        return self

    def _check_template(self, field: str, text: str | None, answers: set[str]) -> None:
        """Refuse a template with unknown placeholders, or without one for a setting that it would leave unread."""
        if text is None:
            return
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(f"judge.{field}: {error}; write '{{{{' and '}}}}' for braces") from error
        names = {name for _, name, *_ in parsed if name is not None}
        known = self.PLACEHOLDERS | answers
        if unknown := sorted(names - known) or [name for _, name, *how in parsed if name and any(how)]:
            raise ConfigurationError(
                f"judge.{field} has {{{unknown[0]}}}, which is no placeholder: there are {', '.join(sorted(known))}; "
                "write '{{' and '}}' for braces"
            )
        named = self.instruction is not None or bool(self.criteria or self.principles)
        wanted = answers | ({"rubric"} if named else set()) | ({"reference"} if self.reference else set())
        if missing := sorted(wanted - names):
            raise ConfigurationError(f"judge.{field} lacks {{{missing[0]}}}: without it the judge would not see it")
        if not names & {"conversation", "question"}:
            raise ConfigurationError(f"judge.{field} lacks {{conversation}}, or {{question}} for its last user turn")
        if "reference" in names and not self.reference:
            raise ConfigurationError(f"judge.{field} has {{reference}}: set judge.reference to show one")
