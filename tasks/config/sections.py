"""What a configuration's sections are made of: frozen, without unknown keys or secrets; and things that they name.

A stage key names what differs from the defaults: a setting that is added later, at its default, leaves every key as it
was. A field marked `NOT_IN_KEY` never counts: it changes how a stage runs but not what it computes, or it says where
something is whose content is in the key.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, runtime_checkable

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, to_jsonable_python

from tasks.config.errors import ConfigurationError

NOT_IN_KEY = "not in the stage key"
_SECRET_NAME = re.compile(
    r"(.*(hub|hf|auth|access|bearer)_?)?token|.*api_?key|.*access_?key(_?id)?|.*(password|passwd|secret).*", re.I
)
_SECRET_IN_URI = re.compile(r"://[^/\s]*@")


def _secrets(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where a value, as it was read, holds credentials: in a URI, or under a name that says so."""
    if isinstance(value, str):
        if _SECRET_IN_URI.search(value):
            yield place
    elif isinstance(value, dict | list | tuple):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            if _SECRET_NAME.fullmatch(str(name)) and item is not None and not isinstance(item, bool):
                yield (*place, name)
            else:
                yield from _secrets(item, (*place, name))


class Section(BaseModel):
    """One section of the configuration: immutable, with no unknown keys and no secrets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _has_no_secrets(cls, values: Any) -> Any:
        """Refuse secrets before any other check, whose message would repeat them."""
        problem = PydanticCustomError(
            "secret",
            "a secret must not be here: what is configured is written into manifests and shown in Prefect's UI. "
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (S3), HF_TOKEN (the hub), or another environment "
            "variable that the code reads",
        )
        if found := [InitErrorDetails(type=problem, loc=place, input="***") for place in _secrets(values)]:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse yes and no where a number stands: pydantic would take 1 and 0."""
        kind = cls.model_fields[str(info.field_name)].annotation
        kinds = {kind, *get_args(kind)}
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("must be a number: YAML takes yes, no, on and off for true and false")
        return value

    def key_fields(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """Return the fields that decide the stage's output and differ from their defaults, as plain JSON values.

        A section within the section follows the same rule, wherever it is. So a field that is None instead of a section
        at its defaults counts as null, the other way round as {}.

        Args:
            only: The fields that the stage reads; None: all.
        """
        fields = {
            name: (field, key_value(getattr(self, name)))
            for name, field in type(self).model_fields.items()
            if NOT_IN_KEY not in field.metadata and (only is None or name in only)
        }
        return {name: value for name, (field, value) in fields.items() if not is_default(field, value)}


@runtime_checkable
class Digested(Protocol):
    """What is named by its content, such as an artifact."""

    digest: str


def key_value(value: Any) -> Any:
    """Return a value as it counts in a stage key, as plain JSON: artifacts by digest, sections by their key fields."""
    if isinstance(value, Section):
        return value.key_fields()
    if isinstance(value, Digested):
        return value.digest
    if isinstance(value, Mapping):
        return {str(name): key_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [key_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(key_value, value), key=json.dumps)
    return to_jsonable_python(value)


def same_in_key(one: Any, other: Any) -> bool:
    """Tell whether two key values are the same: 16 and 16.0 are, 1 and True are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def is_default(field: FieldInfo, value: Any) -> bool:
    """Tell whether a field has its default, given as a key value. A field that only tells classes apart never has."""
    is_tag = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    if field.is_required() or is_tag:
        return False
    return same_in_key(value, key_value(field.get_default(call_default_factory=True)))


def _reachable(path: str) -> str:
    """Return a path that is read from here, from S3 or from the hub, and from no other place."""
    if "://" in path and not re.match(r"file://|s3://[^/]", path):
        raise ConfigurationError(
            "must be a file, a folder, file:///..., s3://bucket/key or a hub id: download it first"
        )
    return path


class Located(Section):
    """A thing named by a path, a URI or a hub id; a plain string is short for its `path`."""

    path: Annotated[str, NOT_IN_KEY, AfterValidator(_reachable)] = Field(min_length=1)
    """File, folder, `file://` or `s3://` URI, or Hugging Face hub id. What it holds is in the key, not where it is."""
    revision: Annotated[str | None, NOT_IN_KEY] = None
    """Branch, tag or commit on the hub."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Admit a plain string, so that Prefect's server does too."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        fields = dict(schema)
        schema.clear()
        schema.update({"title": fields["title"], "anyOf": [{"type": "string"}, fields]})
        return reference


class DataSource(Located):
    """A file (JSON, JSONL, either .gz, Parquet), a folder of them, a saved dataset folder, or a hub dataset id."""

    name: Annotated[str | None, NOT_IN_KEY] = None
    """Configuration of a hub dataset, or of a folder whose card lists some or that has a folder of that name."""
    data_dir: Annotated[str | None, NOT_IN_KEY] = None
    """Folder within a hub dataset or a folder."""
    split: Annotated[str, NOT_IN_KEY] = "train"
    """Split of a hub dataset or a folder, told by its card or by the names of its files. `train` where none is told."""


class PreferenceSource(DataSource):
    """Preferences: data as above, in a form that docs/data.md lists, alone or one of several sources."""

    format: str | None = None
    """Form of the rows, where their columns do not tell it. None: told from the columns."""
    dimension: str | None = None
    """Which of several judgements of a row counts, in forms that have several: `safer`, `helpfulness`, ..."""
    weight: float = Field(1.0, gt=0, le=100)
    """How often each pair counts. 2: twice. 0.5: the pairs of half of the prompts, chosen by their hashes, so that the
    choice is stable as data grow. 1.5: all once, and those of half of the prompts once more."""
    label: Annotated[str | None, NOT_IN_KEY] = Field(None, min_length=1)
    """What the counts call the source. None: its path."""


class ModelSource(Located):
    """A model folder with safetensors, in a file system, a store or the hub; or a GGUF file."""

    gguf_file: Annotated[str | None, NOT_IN_KEY] = Field(None, pattern=r"^[^/]+\.gguf$")
    """Name of a GGUF file in the folder, or on the hub. A path that ends in `.gguf` names a file by itself. Quantized
    weights are taken as the float32 numbers that they are."""
    label: Annotated[str | None, NOT_IN_KEY] = None
    """Of a ready reward model with several outputs: the one that is the reward, by its name in its `id2label`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
    chat_template: Annotated[str | None, NOT_IN_KEY] = None
    """None: the tokenizer's own, or `plain` where it has none. `plain`: "Human:" and "Assistant:" turns.
    `text`: messages are joined as they are and continued. Otherwise the path of a Jinja file."""
    template_date: Annotated[date, NOT_IN_KEY] = date(2024, 7, 26)
    """The day that it always is for a template that writes today's date, so that a prompt has the same tokens on any
    day. The default is what Llama 3's templates say where nobody tells them."""


class Function(Section):
    """A Python function named `module:function`, called with further keyword options."""

    function: Annotated[str, NOT_IN_KEY] = Field(pattern=r"^[\w.]+:\w+$")
    """For a gold reward: `f(messages, completion, **options) -> float`. One that has a parameter `metadata` gets the
    prompt's, as a dictionary of its columns `metadata` and `id`; one with `reference_completion` what came with it."""
    options: Annotated[dict[str, Any], NOT_IN_KEY] = {}
    """Keyword options. Stages that call the function are keyed by its source, its options, and the files they name."""
