"""Folders that are no model."""

import json

import pytest
from imports import edit, refused

from tasks.models.form import unread_template


@pytest.mark.parametrize("path", ["{}/nothing", "./nothing", "~/nothing/at/all", "nothing", "file://{}/nothing"])
def test_missing_folder(tmp_path, path):
    refused(path.format(tmp_path), r"model folder .*nothing.* does not exist", tmp_path)


def test_missing_on_the_hub(tmp_path):
    refused("nobody/nothing", r"model nobody/nothing is no folder, and the hub .*HF_HUB_OFFLINE", tmp_path)


def test_a_file_is_no_folder(model, tmp_path):
    refused(model / "config.json", r"config.json does not exist", tmp_path)


def test_no_config(model, tmp_path):
    (model / "config.json").unlink()
    refused(model, rf"{model} has no config.json: it is no model folder", tmp_path)


def test_no_weights(model, tmp_path):
    (model / "model.safetensors").unlink()
    refused(model, rf"{model} has no safetensors weights: save them", tmp_path)


def test_only_pickled_weights(model, tmp_path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    refused(model, rf"{model} has no safetensors weights, only pytorch_model.bin.*: save them", tmp_path)


def test_an_index_alone_is_no_weights(model, tmp_path):
    (model / "model.safetensors").rename(model / "model.safetensors.index.json")
    refused(model, rf"{model} has no safetensors weights", tmp_path)


def test_a_missing_shard(model, tmp_path):
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {
        "metadata": {},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(model, r"model-00002-of-00002.safetensors", tmp_path)


def test_no_tokenizer(model, tmp_path):
    for path in model.glob("tokenizer*"):
        path.unlink()
    refused(model, rf"{model} has no tokenizer that loads", tmp_path)


def test_damaged_tokenizer(model, tmp_path):
    path = model / "tokenizer.json"
    path.write_text(path.read_text()[:1000])
    refused(model, rf"{model} has no tokenizer that loads", tmp_path)


def test_tokenizer_without_eos(model, tmp_path):
    edit(model / "tokenizer_config.json", eos_token=None)
    refused(model, rf"the tokenizer of {model} has no EOS token: set eos_token", tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.json"])
def test_a_template_that_is_not_read_is_named(model, name):
    own = "{{ messages[0].content }}!"
    (model / "chat_template.jinja").write_text(own)
    (model / name).touch()
    values = json.loads((model / name).read_text() or "{}")
    for other, said in ((f"{own}\n", None), ("{{ messages[0].content }}?", name)):
        (model / name).write_text(json.dumps(values | {"chat_template": other}))
        assert unread_template(model) == said


def test_a_chat_template_file_that_is_missing(model, tmp_path):
    refused(
        model,
        r"chat_template = '/no/such.jinja' must be `plain`, `text` or the path",
        tmp_path,
        chat_template="/no/such.jinja",
    )
