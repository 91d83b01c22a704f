"""Heads of ready reward models as they come, against transformers' own forward pass or the computation by hand."""

import json

import pytest
import torch
from imports import edit, files, refused, rewrite, source
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, RobertaConfig
from transformers import RobertaForSequenceClassification as Roberta

from tasks.config.errors import ConfigurationError
from tasks.models.reward_heads import has_bias, with_one_output
from tasks.models.weights import load_weights
from tasks.rewards.model import CompletionRewards

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [[5, 6, 7, 8, 9], [5, 6, 11]]


def score(folder):
    """Return the rewards that scoring gives to the two sequences."""
    rewards = CompletionRewards(load_weights(folder, "reward_model", "float32", False))
    return torch.tensor(rewards([[5, 6]], [IDS[0][2:], IDS[1][2:]], [0, 0]))


def last_states(model):
    with torch.no_grad():
        return torch.stack([model.base_model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in IDS])


@pytest.fixture
def several(model):
    """Return the story model with a head of three labels, and what transformers gives for each."""
    names = {0: "harmless", 1: "helpfulness", 2: "verbosity"}
    torch.manual_seed(0)
    whole = AutoModelForSequenceClassification.from_pretrained(model, num_labels=3, id2label=names, pad_token_id=0)
    whole.save_pretrained(model)
    with torch.no_grad():
        return model, torch.cat([whole.eval()(torch.tensor([ids])).logits for ids in IDS])


@pytest.mark.parametrize(("label", "column"), [("helpfulness", 1), ("verbosity", 2)])
def test_one_label_of_several(several, label, column):
    folder, logits = several
    one = with_one_output(folder, source(folder, label=label))
    torch.testing.assert_close(score(one), logits[:, column], atol=1e-5, rtol=1e-5)
    assert "model.safetensors" in files(one, "reward_model")
    assert json.loads((one / "config.json").read_text())["id2label"] == {"0": label}
    assert with_one_output(folder, source(folder, label=label)) == one  # made once
    assert with_one_output(one, source(one)) == one


def test_several_labels_want_a_name(several, tmp_path):
    folder, _ = several
    message = r"3 labels: set label .*: harmless, helpfulness, verbosity"
    refused(folder, message, tmp_path, role="reward_model")
    refused(folder, r"has no label 'help': .*harmless, helpful", tmp_path, role="reward_model", label="help")
    refused(folder, r"label = 'help' of .* is for a ready reward model", tmp_path, role="policy", label="help")


@pytest.mark.parametrize("name", ["v_head.summary", "value_head", "regression_head"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_value_head_beside_a_causal_model(model, name, biased):
    causal = AutoModelForCausalLM.from_pretrained(model).eval()
    weight, bias = torch.randn(1, causal.config.hidden_size, generator=torch.Generator().manual_seed(0)), torch.ones(1)
    expected = last_states(causal) @ weight[0] + (bias if biased else 0.0)
    more = {f"{name}.weight": weight, **({f"{name}.bias": bias} if biased else {})}
    rewrite(model, lambda weights: weights | more)
    edit(model / "config.json", pad_token_id=0)
    one = with_one_output(model, source(model))
    assert has_bias(one) == biased
    assert not any(key.startswith(("lm_head", name)) for key in load_file(one / "model.safetensors"))
    assert "model.safetensors" in files(one, "reward_model")
    torch.testing.assert_close(score(one), expected, atol=1e-5, rtol=1e-5)


def test_a_bias_survives_saving(model, tmp_path):
    test_a_value_head_beside_a_causal_model(model, "v_head", True)
    one = with_one_output(model, source(model))
    loaded = load_weights(one, "reward_model", "float32", False)
    loaded.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(score(tmp_path / "again"), score(one))


def test_out_proj_of_a_classification_head(tmp_path):
    """RoBERTa's `classifier.out_proj` has a bias, and a layer before it, which stay what they are."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = RobertaConfig(vocab_size=64, pad_token_id=1, id2label={0: "bad", 1: "good"}, **shape)
    whole = Roberta(config).eval()
    torch.nn.init.normal_(whole.classifier.out_proj.bias)
    whole.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = torch.cat([whole(torch.tensor([ids])).logits for ids in IDS])
    one = with_one_output(tmp_path, source(tmp_path, label="good"))
    torch.testing.assert_close(score(one), expected[:, 1], atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigurationError, match=r"2 labels: set label .*: bad, good"):
        with_one_output(tmp_path, source(tmp_path))
