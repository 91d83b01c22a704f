"""What a configuration's sections are made of: frozen, without unknown keys or secrets; and things that they name.

A field marked `NOT_IN_KEY` is left out of the stage key: it changes how a stage runs but not what it computes, or it
says where something is whose content is in the key.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from tasks.errors import ConfigurationError

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

    def key_fields(self) -> dict[str, Any]:
        """Return the fields that decide the stage's output, as plain JSON values."""
        hidden = {name for name, field in type(self).model_fields.items() if NOT_IN_KEY in field.metadata}
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in hidden}
        return {
            name: value.key_fields()
            if isinstance(value, Section)
            else self.model_dump(mode="json", include={name})[name]
            for name, value in fields.items()
        }


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

    name: str | None = None
    """Configuration of a hub dataset, or of a folder whose card lists some or that has a folder of that name."""
    data_dir: str | None = None
    """Folder within a hub dataset or a folder."""
    split: str = "train"
    """Split of a hub dataset or a folder, told by its card or by the names of its files. `train` where none is told."""


class ModelSource(Located):
    """A model folder with safetensors, in a file system, a store or the hub."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
    chat_template: Annotated[str | None, NOT_IN_KEY] = None
    """None: the tokenizer's own, or `plain` where it has none. `plain`: "Human:" and "Assistant:" turns.
    `text`: messages are joined as they are and continued. Otherwise the path of a Jinja file."""


class Function(Section):
    """A Python function named `module:function`, called with further keyword options."""

    function: Annotated[str, NOT_IN_KEY] = Field(pattern=r"^[\w.]+:\w+$")
    """For a gold reward: `f(messages, completion, **options) -> float`."""
    options: Annotated[dict[str, Any], NOT_IN_KEY] = {}
    """Keyword options. Stages that call the function are keyed by its source, its options, and the files they name."""
