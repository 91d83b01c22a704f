"""Reward models come in: one reward, a pad token that ends nothing, a first token."""

import json

import pytest
from imports import edit, files, refused, source, stored
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from tasks.config.settings import RewardModelConfig
from tasks.import_model import import_reward_model
from tasks.lm.tokens import load_tokenizer
from tasks.models.loading import model_folder
from tasks.pipeline.dry_run import PLAN, Plan
from tasks.pipeline.site import Site
from tasks.store.artifacts import NOTHING
from tasks.store.folders import Store


@pytest.fixture
def reward_model(model):
    """Return a reward model with the story model's body."""
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(model)
    return model


def test_a_causal_model_is_no_reward_model(model, tmp_path):
    message = refused(model, rf"{model} is no reward model", tmp_path, role="reward_model")
    assert "LlamaForCausalLM" in message
    assert "reward_model.base_model" in message


def test_a_classifier_with_two_labels_is_no_reward_model(reward_model, tmp_path):
    edit(reward_model / "config.json", id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    refused(
        reward_model,
        r"is no reward model with one output, .* 2 labels: set label .*: bad, good",
        tmp_path,
        role="reward_model",
    )


@pytest.mark.parametrize("pad", ["</s>", None])
def test_a_reward_model_is_given_the_pad_token_of_its_own_config(reward_model, tmp_path, pad):
    edit(reward_model / "tokenizer_config.json", pad_token=pad)
    folder = model_folder(stored(reward_model, Store(str(tmp_path / "store")), "reward_model"))
    assert load_tokenizer(folder).pad_token_id == 0


def test_a_reward_model_that_has_nothing_to_pad_with_beside_eos(reward_model, tmp_path):
    text = (reward_model / "tokenizer.json").read_text().replace('"<unk>"', '"<unknown>"')
    (reward_model / "tokenizer.json").write_text(text)
    edit(reward_model / "tokenizer_config.json", pad_token="</s>", unk_token="<unknown>")
    message = refused(reward_model, r"pads with EOS", tmp_path, role="reward_model")
    assert "tokenizer_config.json" in message


@pytest.mark.parametrize("pad", [2, None])
def test_a_reward_model_whose_own_config_pads_with_eos_or_nothing(reward_model, tmp_path, pad):
    edit(reward_model / "config.json", pad_token_id=pad)
    refused(reward_model, r"pad_token_id", tmp_path, role="reward_model")


@pytest.mark.parametrize("role", ["reward_model", "reward_base"])
def test_a_reward_model_that_pads_with_the_token_that_ends_a_turn(reward_model, tmp_path, role):
    # transformers reads a reward at the last token that is no padding: before the end of the turn, then.
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<unk>{% endfor %}"
    edit(reward_model / "tokenizer_config.json", pad_token="<unk>", chat_template=template)
    if role == "reward_model":
        refused(reward_model, r"pads with EOS or the token that ends a turn", tmp_path, role=role)
        return
    token = PLAN.set(Plan(tmp_path))
    try:
        with pytest.raises(ValueError, match="or pads with the token that ends a turn, so no reward could be read"):
            import_reward_model(
                Site(Store(str(tmp_path / "s"))), RewardModelConfig(base_model=source(reward_model)), NOTHING
            )
    finally:
        PLAN.reset(token)


def test_a_reward_model_of_berts_kind_reads_its_first_token(tmp_path):
    # BERT's tokenizer has no BOS: the reward would be read at the first word of the question.
    folder = tmp_path / "bert"
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(number) for number in range(33, 127)]
    config = BertConfig(vocab_size=512, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join([*marks, *letters, *(f"##{letter}" for letter in letters)]))
    names = {"tokenizer_class": "BertTokenizer", "eos_token": "[SEP]", "cls_token": "[CLS]", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    refused(folder, r"reads a reward at '\[CLS\]'.*set bos_token to '\[CLS\]'", tmp_path, role="reward_model")
    edit(folder / "tokenizer_config.json", bos_token="[CLS]")
    assert "model.safetensors" in files(folder, "reward_model")


def test_a_ready_reward_model_without_a_template_is_named(reward_model, capsys):
    files(reward_model, "reward_model")
    assert f"{reward_model} reads conversations as the template `plain` writes them" in capsys.readouterr().out


def test_a_good_model_is_not_refused(model, reward_model):
    assert "model.safetensors" in files(reward_model, "reward_model")
