"""Models as they would be stored, from folders that are edited."""

import json

import pytest

from tasks.config.sections import ModelSource
from tasks.import_model import model_files
from tasks.lm.tokens import load_tokenizer
from tasks.models.tokenizer_checks import MIXED_TEXT


def edit(path, **changes):
    """Change entries of a JSON file; None takes one out."""
    values = (json.loads(path.read_text()) if path.is_file() else {}) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def stored(model, role="policy", **fields):
    """Return a folder with the model as it would be stored."""
    folder = model.parent / "stored"
    folder.mkdir()
    for name, content in model_files(model, ModelSource(path=str(model), **fields), role).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def refused(model, message, **fields):
    with pytest.raises(ValueError, match=message) as caught:
        model_files(model, ModelSource(path=str(model), **fields), "policy")
    assert "rs-dpo-model-" not in str(caught.value)  # the folder that a person knows is named


def ids(folder, text=MIXED_TEXT, **options):
    return load_tokenizer(folder)(text, **options)["input_ids"]
