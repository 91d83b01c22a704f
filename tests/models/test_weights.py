"""Weights against their architecture, which says what they are called and how large they are."""

import json

import pytest
import torch
import transformers
from imports import rewrite
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, XLNetConfig

from tasks.config.sections import ModelSource
from tasks.import_model import model_files
from tasks.models.loading import load_policy
from tasks.models.weight_files import WEIGHTS
from tasks.models.weights import check_head, load_weights, outline

SMALL = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, **TOKENS}
CAUSAL = {
    "Llama": SMALL,
    "Qwen2": {**SMALL, "num_key_value_heads": 2},
    "Qwen3": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    "Gemma2": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    "Gemma3Text": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    "Phi3": SMALL,
    "Mistral": {**SMALL, "num_key_value_heads": 2},
    "Mixtral": {**SMALL, "num_key_value_heads": 2, "num_local_experts": 2},
    "GPT2": GPT2,
    "GPTNeoX": SMALL,
    "OPT": {
        "vocab_size": 96,
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "word_embed_proj_dim": 32,
        "num_attention_heads": 4,
    },
    "Bloom": {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "Falcon": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "Mamba": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2},
}
ENCODERS = {"Roberta": {**SMALL, "pad_token_id": 1}, "Bert": SMALL, "DebertaV2": SMALL}


def config_of(name, **fields):
    known = {**(CAUSAL | ENCODERS)[name], **fields}
    return getattr(transformers, f"{name}Config")(**{**TOKENS, **known})


def saved(folder, auto, config):
    torch.manual_seed(0)
    kind = auto.from_config(config)
    kind.save_pretrained(folder)
    return kind


def without(*names):
    return lambda weights: {name: value for name, value in weights.items() if name not in names}


def both_refuse(folder, role, message):
    """Check that neither the look at the names nor the loading lets a model through."""
    with pytest.raises(ValueError, match=message):
        outline(folder, role, False)
    with pytest.raises(ValueError, match=message):
        load_weights(folder, role, "float32", False)


@pytest.mark.parametrize("name", CAUSAL)
def test_whole_models_pass_and_one_weight_less_is_named(tmp_path, name):
    expected = saved(tmp_path, AutoModelForCausalLM, config_of(name))
    assert {value.device.type for value in outline(tmp_path, "policy", False).parameters()} == {"meta"}
    loaded = load_weights(tmp_path, "policy", "float32", False).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in expected.state_dict().items())
    norm = next(key for key in load_file(tmp_path / WEIGHTS) if "norm" in key or "ln_" in key)
    rewrite(tmp_path, without(norm))
    both_refuse(tmp_path, "policy", rf"does not hold the weights of a \w+, 1 missing \(.*{norm.rpartition('.')[2]}\)")


@pytest.mark.parametrize("name", [name for name in CAUSAL if name != "Mamba"])
def test_a_causal_model_is_a_base_for_a_reward_model_and_none_that_is_ready(tmp_path, name):
    saved(tmp_path, AutoModelForCausalLM, config_of(name))
    outline(tmp_path, "reward_base", False)
    head = load_weights(tmp_path, "reward_base", "float32", False)
    with pytest.raises(ValueError, match=r"1 missing \(score.weight\)"):
        outline(tmp_path, "reward_model", False)
    head.save_pretrained(tmp_path)
    outline(tmp_path, "reward_model", False)
    both_refuse(tmp_path, "policy", r"unknown to it \(score.weight\)")


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_as_ready_reward_models_and_as_their_base(tmp_path, name):
    saved(tmp_path / "ready", AutoModelForSequenceClassification, config_of(name, num_labels=1))
    saved(tmp_path / "base", AutoModelForMaskedLM, config_of(name))
    outline(tmp_path / "ready", "reward_model", False)
    outline(tmp_path / "base", "reward_base", False)
    load_weights(tmp_path / "base", "reward_base", "float32", False)
    both_refuse(tmp_path / "base", "reward_model", r"missing \(.*classifier")


@pytest.mark.parametrize("name", ["Roberta", "Bert"])
def test_a_model_that_fills_in_masks_is_no_policy(tmp_path, name):
    saved(tmp_path / "masked", AutoModelForMaskedLM, config_of(name))
    with pytest.raises(ValueError, match=rf"is no policy: a {name.lower()} model reads what comes after a token"):
        outline(tmp_path / "masked", "policy", False)
    saved(tmp_path / "causal", AutoModelForCausalLM, config_of(name, is_decoder=True))
    outline(tmp_path / "causal", "policy", False)


def test_a_model_that_attends_both_ways_is_no_policy(tmp_path):
    saved(tmp_path, AutoModelForCausalLM, XLNetConfig(vocab_size=64, d_model=32, n_layer=1, n_head=2, d_inner=64))
    with pytest.raises(ValueError, match="is no policy: a xlnet model reads what comes after a token"):
        outline(tmp_path, "policy", False)


def test_a_base_with_a_hole_in_its_body_is_refused(tmp_path):
    saved(tmp_path, AutoModelForCausalLM, config_of("Llama"))
    rewrite(tmp_path, without("model.layers.1.mlp.up_proj.weight"))
    both_refuse(tmp_path, "reward_base", r"1 missing \(model.layers.1.mlp.up_proj.weight\)")


def test_a_classifier_with_two_labels_is_a_base(tmp_path):
    saved(tmp_path, AutoModelForSequenceClassification, config_of("Llama", num_labels=2))
    outline(tmp_path, "reward_base", False)
    assert load_weights(tmp_path, "reward_base", "float32", False).score.weight.shape == (1, 32)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model._orig_mod.", "_fsdp_wrapped_module."])
def test_weights_of_a_wrapped_module(model, prefix):
    rewrite(model, lambda weights: {prefix + name: value for name, value in weights.items()})
    both_refuse(model, "policy", rf"unknown to it .*take '{prefix.split('.')[-2]}' out of the names")
    with pytest.raises(ValueError, match="LlamaForCausalLM, 48 missing"):
        load_policy(model, "float32", False)


def test_a_tied_head_may_be_left_out_and_another_may_not(tmp_path):
    saved(tmp_path / "tied", AutoModelForCausalLM, config_of("Llama", tie_word_embeddings=True))
    saved(tmp_path / "own", AutoModelForCausalLM, config_of("Llama", tie_word_embeddings=False))
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / WEIGHTS)
    outline(tmp_path / "tied", "policy", False)
    rewrite(tmp_path / "own", without("lm_head.weight"))
    both_refuse(tmp_path / "own", "policy", r"1 missing \(lm_head.weight\)")


def test_a_tied_head_with_values_of_its_own(tmp_path, model):
    # transformers would use both, vLLM the embeddings for both: samples of another model than is trained.
    head = torch.arange(512 * 64).reshape(512, 64).float()
    rewrite(model, lambda weights: weights | {"lm_head.weight": head})
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    with pytest.raises(
        ValueError, match=r"lm_head.weight other than model.embed_tokens.weight.*tie_word_embeddings to"
    ):
        model_files(model, ModelSource(path=str(model)), "policy")
    rewrite(model, lambda weights: weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    assert WEIGHTS in model_files(model, ModelSource(path=str(model)), "policy")


def test_attention_is_capped_as_gemma_2_caps_it(tmp_path):
    own = saved(tmp_path, AutoModelForCausalLM, config_of("Gemma2", attn_logit_softcapping=0.1, initializer_range=1.0))
    ids = torch.arange(3, 33)[None]
    with torch.no_grad():
        free = own.eval()(input_ids=ids).logits
        own.set_attn_implementation("eager")
        capped = own(input_ids=ids).logits
        found = load_weights(tmp_path, "policy", "float32", False).eval()(input_ids=ids).logits
    assert (free - capped).abs().max() > 0.1  # the faster kernel leaves out the cap, without a word
    torch.testing.assert_close(found, capped)


def test_weights_that_are_unknown_or_of_another_shape(model):
    rewrite(model, lambda weights: weights | {"v_head.weight": torch.ones(1, 64), "model.norm.weight": torch.ones(8)})
    both_refuse(model, "policy", r"1 unknown to it \(v_head.weight\); 1 of another shape \(model.norm.weight is \[8\] ")


def test_masks_and_positions_of_older_releases_and_a_spare_head_do_no_harm(tmp_path):
    saved(tmp_path / "gpt2", AutoModelForCausalLM, config_of("GPT2"))
    saved(tmp_path / "reward", AutoModelForSequenceClassification, config_of("Llama", num_labels=1))
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "transformer.h.1.attn.masked_bias": torch.ones(1)}
    rewrite(tmp_path / "gpt2", lambda weights: weights | mask)
    rewrite(tmp_path / "reward", lambda weights: weights | {"lm_head.weight": torch.ones(96, 32)})
    load_weights(tmp_path / "gpt2", "policy", "float32", False)
    load_weights(tmp_path / "reward", "reward_model", "float32", False)


def test_a_missing_expert(tmp_path):
    saved(tmp_path, AutoModelForCausalLM, config_of("Mixtral"))
    rewrite(tmp_path, without("model.layers.0.block_sparse_moe.experts.1.w1.weight"))
    with pytest.raises(ValueError, match=f"the model in {tmp_path} cannot be built"):
        outline(tmp_path, "policy", False)


def test_no_reward_model_can_be_trained_from_an_architecture_without_one(tmp_path):
    config_of("Mamba").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="transformers has no mamba model with a scalar head"):
        check_head(tmp_path, False)


def test_a_model_with_code_of_its_own(model, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    path, source = model / "config.json", ModelSource(path=str(model))
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own | {"architectures": ["MyModel"]}))
    (model / "mine.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'mine'\n\n\n"
        "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    with pytest.raises(ValueError, match=f"{model} comes with code of its own.*trust_remote_code: true"):
        model_files(model, source, "policy")
    assert "mine.py" in model_files(model, source.model_copy(update={"trust_remote_code": True}), "policy")
    assert type(load_policy(model, "float32", True)).__name__ == "MyModel"


def test_quantised_weights(model):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ValueError, match=r"quantised \(gptq, by quantization_config in config.json\)"):
        model_files(model, ModelSource(path=str(model)), "policy")
