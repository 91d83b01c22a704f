"""Files of weights: cut off, twice, adapters; values that are no numbers."""

import json
import shutil
import struct

import pytest
import torch
from imports import rewrite
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tasks.config.sections import ModelSource
from tasks.import_model import model_files
from tasks.models.loading import load_policy
from tasks.models.weight_files import WEIGHTS, check_values, weight_files
from tasks.models.weights import outline

# Files


@pytest.mark.parametrize("left", [0, 5, 100, -100])
def test_files_that_were_cut_off(model, left):
    path = model / WEIGHTS
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=f"{path} is damaged or cut off"):
        weight_files(model)


def test_a_header_longer_than_its_file(model):
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(struct.pack("<Q", len(data) * 2) + data[8:])
    with pytest.raises(ValueError, match="is damaged or cut off"):
        weight_files(model)


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_pointers_of_git_lfs(model, name):
    (model / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(ValueError, match=f"{model / name} is a pointer of git-lfs"):
        model_files(model, ModelSource(path=str(model)), "policy")


def test_two_sets_of_weights_in_one_folder(model):
    shard = "model-00001-of-00001.safetensors"
    shutil.copyfile(model / WEIGHTS, model / shard)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match="delete the older of the two"):
        weight_files(model)
    (model / WEIGHTS).unlink()
    assert weight_files(model) == [shard]


@pytest.mark.parametrize("given", [None, ["a"], "a"])
def test_an_index_without_a_map(model, given):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": given}))
    with pytest.raises(ValueError, match=rf"weight_map in {model}/model.safetensors.index.json is no JSON object"):
        weight_files(model)


def test_other_safetensors_are_left_out(model):
    for name in ("consolidated.safetensors", "optimizer.safetensors"):
        shutil.copyfile(model / WEIGHTS, model / name)
    assert [name for name in model_files(model, ModelSource(path=str(model)), "policy") if "tensors" in name] == [
        WEIGHTS
    ]


def test_a_weight_in_two_shards(model):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        shutil.copyfile(model / WEIGHTS, model / name)
    (model / WEIGHTS).unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    with pytest.raises(ValueError, match=r"holds .* a second time"):
        outline(model, "policy", False)


def test_adapters(model):
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", base_model_name_or_path="org/base")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(model)
    with pytest.raises(
        ValueError, match=rf"{model} holds an adapter of .*, with weights .* beside it .*: merge it first"
    ):
        weight_files(model)
    (model / WEIGHTS).rename(model / "kept")
    with pytest.raises(ValueError, match=rf"{model} holds an adapter of [^,]*: merge it first"):
        weight_files(model)
    (model / "adapter_model.safetensors").unlink()
    (model / "kept").rename(model / WEIGHTS)  # merged: what is left of the adapter is a note
    assert weight_files(model) == [WEIGHTS]
    assert "adapter_config.json" not in model_files(model, ModelSource(path=str(model)), "policy")


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(model, value):
    def change(weights):
        weights["model.layers.2.mlp.down_proj.weight"][3, 5] = value
        return weights

    rewrite(model, change)
    for check in (check_values, lambda folder: load_policy(folder, "float32", False)):
        with pytest.raises(ValueError, match=r"NaN or infinite, first in model.layers.2.mlp.down_proj.weight"):
            check(model)


def test_weights_that_are_whole_numbers(model):
    # transformers would take them for weights as they are, without the scales that they were divided by.
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(model, lambda weights: weights | {name: (weights[name] * 100).to(torch.int8)})
    with pytest.raises(ValueError, match=rf"{name} in {model} holds whole numbers \(int8\), not weights"):
        check_values(model)


def test_empty_weights(model):
    zero = {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"}
    rewrite(model, lambda weights: {n: v * (n != "model.layers.0.mlp.up_proj.weight") for n, v in weights.items()})
    check_values(model)  # blocks that were added to a model begin so
    rewrite(model, lambda weights: {n: v * (n not in zero) for n, v in weights.items()})
    with pytest.raises(ValueError, match=r"2 matrices with nothing but zeros \(model.embed_tokens.weight, "):
        check_values(model)
