"""Models in GGUF: the numbers of the file, as they are, in a folder like any other."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import write_gguf
from transformers import AutoModelForCausalLM

from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.models.gguf import unpack
from tasks.models.licence import find_licence
from tasks.models.locate import locate_model


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([[1, 5, 9, 200, 31]])).logits


def test_quantized_weights_are_the_numbers_that_they_are(test_data, tmp_path):
    write_gguf(test_data / "stories260k", tmp_path / "m.gguf", quantized=True)
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (test_data / "stories260k", unpack(tmp_path / "m.gguf"))
    )
    for name, values in before.items():
        kind, own = gguf.GGMLQuantizationType.Q4_1, values.numpy()
        if own.ndim == 2 and own.shape[1] % 32 == 0:
            own = gguf.quants.dequantize(gguf.quants.quantize(own, kind), kind)
        np.testing.assert_array_equal(after[name].numpy(), own, err_msg=name)


def test_an_unpacked_model_computes_what_the_file_holds(test_data, tmp_path):
    write_gguf(test_data / "stories260k", tmp_path / "m.gguf", quantized=False)
    folder = unpack(tmp_path / "m.gguf")
    torch.testing.assert_close(logits(folder), logits(test_data / "stories260k"))
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"
    assert find_licence(folder)["license"] == "mit"
    assert unpack(tmp_path / "m.gguf") == folder


def test_a_file_is_named_by_itself_or_within_a_folder(test_data, tmp_path):
    write_gguf(test_data / "stories260k", tmp_path / "m.gguf", False)
    by_path = locate_model(ModelSource(path=str(tmp_path / "m.gguf")))
    assert locate_model(ModelSource(path=str(tmp_path), gguf_file="m.gguf")) == by_path
    assert (by_path / "model.safetensors").is_file()


def test_what_is_no_gguf_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing\.gguf does not exist"):
        unpack(tmp_path / "missing.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ConfigurationError, match=r"bad\.gguf cannot be read as a causal model in GGUF"):
        unpack(tmp_path / "bad.gguf")
    with pytest.raises(ValueError, match="gguf_file"):
        ModelSource(path="x", gguf_file="../m.gguf")
