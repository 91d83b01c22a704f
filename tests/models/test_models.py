"""Models come in: what a folder must have, what is written into it, what is left out of it."""

import json
import shutil

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.import_model import import_model, import_policy, import_reward_model, model_files, store_model
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.lm.turns import PLAIN_TEMPLATE, TEXT_TEMPLATE
from tasks.models.form import unread_template
from tasks.models.loading import model_folder
from tasks.models.locate import locate_model
from tasks.pipeline.dry_run import PLAN, Plan
from tasks.pipeline.site import Site
from tasks.store.artifacts import NOTHING, Artifact, Provenance, files_digest
from tasks.store.drafts import Draft
from tasks.store.folders import Store


@pytest.fixture
def model(test_data, tmp_path):
    """Return a copy of the story model to spoil."""
    return shutil.copytree(test_data / "stories260k", tmp_path / "model")


@pytest.fixture
def reward_model(model):
    """Return a reward model with the story model's body."""
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(model)
    return model


def edit(path, **changes):
    """Change entries of a JSON file; None takes one out."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def source(path, **fields):
    return ModelSource(path=str(path), **fields)


def files(folder, role="policy", **fields):
    return model_files(folder, source(folder, **fields), role)


def stored(folder, store, role="policy", **fields):
    """Import a model as the stage does, without Prefect."""
    where = source(folder, **fields)
    given = locate_model(where)
    found = model_files(given, where, role)
    artifact = Artifact(kind="model", uri=str(given), digest=files_digest(found))
    return store_model.body(Draft(store, Provenance(stage="store_model", version=1, key="k")), artifact, where, role)


def refused(folder, message, tmp_path, role="policy", **fields):
    """Check that a run stops at the model, before anything is stored."""
    store = Store(str(tmp_path / "store"))
    token = PLAN.set(Plan(tmp_path))
    try:
        with pytest.raises(ValueError, match=message) as caught:
            import_model(Site(store), source(folder, **fields), role)
    finally:
        PLAN.reset(token)
    assert not (tmp_path / "store").exists()
    return str(caught.value)


# Folders that cannot be used


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


def test_a_causal_model_is_no_reward_model(model, tmp_path):
    message = refused(model, rf"{model} is no reward model", tmp_path, role="reward_model")
    assert "LlamaForCausalLM" in message
    assert "reward_model.base_model" in message


def test_a_classifier_with_two_labels_is_no_reward_model(reward_model, tmp_path):
    edit(reward_model / "config.json", id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    refused(reward_model, r"is no reward model: .*with 2 labels", tmp_path, role="reward_model")


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


def test_a_good_model_is_not_refused(model, reward_model):
    assert "model.safetensors" in files(reward_model, "reward_model")


# What is written in


@pytest.mark.parametrize(
    ("choice", "template"), [(None, PLAIN_TEMPLATE), ("plain", PLAIN_TEMPLATE), ("text", TEXT_TEMPLATE)]
)
def test_the_chat_template_is_written_in(model, tmp_path, choice, template):
    folder = model_folder(stored(model, Store(str(tmp_path / "store")), chat_template=choice))
    assert (folder / "chat_template.jinja").read_text() == template
    assert AutoTokenizer.from_pretrained(folder).chat_template == template
    ids = encode_prompt(load_tokenizer(folder), [{"role": "user", "content": "Once"}])
    assert (len(ids) == 2) == (choice == "text")  # <s> and one word


@pytest.mark.parametrize("place", ["file", "config"])
def test_the_models_own_template_is_kept_and_another_can_replace_it(model, tmp_path, place):
    own = "{{ messages[0].content }}!"
    if place == "file":
        (model / "chat_template.jinja").write_text(own)
    else:
        edit(model / "tokenizer_config.json", chat_template=own)
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}?")
    kept = model_folder(stored(model, Store(str(tmp_path / "one"))))
    replaced = model_folder(stored(model, Store(str(tmp_path / "two")), chat_template=str(tmp_path / "mine.jinja")))
    assert load_tokenizer(kept).chat_template == own
    assert load_tokenizer(replaced).chat_template == "{{ messages[0].content }}?"
    assert "chat_template" not in json.loads((replaced / "tokenizer_config.json").read_text())


def test_of_several_templates_the_default_is_kept(model):
    named = [{"name": name, "template": f"{name} {{{{ messages[0].content }}}}"} for name in ("default", "tool_use")]
    edit(model / "tokenizer_config.json", chat_template=named)
    assert files(model)["chat_template.jinja"] == named[0]["template"].encode()


def test_the_pad_token_is_written_in(model):
    edit(model / "tokenizer_config.json", pad_token=None)
    assert json.loads(files(model)["tokenizer_config.json"])["pad_token"] == "<unk>"
    edit(model / "tokenizer_config.json", pad_token="</s>")
    assert json.loads(files(model)["tokenizer_config.json"])["pad_token"] == "<unk>"


# What is left out, and what names the model


def test_nothing_else_is_copied(model, tmp_path):
    expected = set(files(model))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= expected
    for name in ("pytorch_model.bin", "training_args.bin", "modeling_x.py", "README.md", "optimizer.pt", ".hidden"):
        (model / name).write_bytes(b"x")
    assert set(files(model)) == expected
    artifact = stored(model, Store(str(tmp_path / "store")))
    assert {path.name for path in model_folder(artifact).iterdir()} == expected


@pytest.mark.parametrize("name", ["tokenizer.py", "tokenizer_args.bin", "vocab.bin"])
def test_no_code_and_no_pickle_is_copied_whatever_its_name(model, name):
    (model / name).write_bytes(b"x")
    assert name not in files(model)


def test_a_folder_with_a_files_name_is_left_out(model):
    expected = files_digest(files(model))
    (model / "tokenizer").mkdir()
    assert files_digest(files(model)) == expected


def test_code_comes_along_only_where_it_is_trusted(model):
    (model / "modeling_x.py").write_text("pass")
    assert "modeling_x.py" not in files(model)
    assert "modeling_x.py" in files(model, trust_remote_code=True)


def test_the_digest_does_not_depend_on_the_folder(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "elsewhere" / "renamed")
    assert files_digest(files(model)) == files_digest(files(other))
    store = Store(str(tmp_path / "store"))
    first = stored(model, store)
    again = stored(first.uri, Store(str(tmp_path / "second")))
    by_uri = stored(model.as_uri(), Store(str(tmp_path / "third")))
    assert first.digest == again.digest == by_uri.digest == files_digest(files(model))


def test_the_digest_names_the_content(model):
    before = {files_digest(files(model)), files_digest(files(model, chat_template="text"))}
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    before.add(files_digest(files(model)))
    edit(model / "config.json", rms_norm_eps=1e-6)
    before.add(files_digest(files(model)))
    assert len(before) == 4


def test_the_stored_model_is_the_same_model(model, tmp_path):
    folder = model_folder(stored(model, Store(str(tmp_path / "store"))))
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert (folder / "config.json").read_bytes() == (model / "config.json").read_bytes()


# Sections


def test_a_dry_run_lays_out_no_weights(model, tmp_path):
    token = PLAN.set(plan := Plan(tmp_path))
    try:
        found = import_policy(Site(Store(str(tmp_path / "store"))), SftConfig(ready_model=source(model)))
    finally:
        PLAN.reset(token)
    assert [step["action"] for step in plan.steps] == ["compute"]
    assert not list(model_folder(found).glob("*.safetensors"))
    assert encode_prompt(load_tokenizer(model_folder(found)), [{"role": "user", "content": "Hi"}])[0] == 1
    assert not (tmp_path / "store").exists()


def test_no_reward_model_named_starts_from_the_policy(model, tmp_path):
    policy = Artifact(kind="model", uri=str(model), digest="")
    assert not import_reward_model(Site(Store(str(tmp_path))), RewardModelConfig(), policy)


def test_a_base_of_a_reward_model_may_be_causal_but_a_ready_one_may_not(model, tmp_path):
    token = PLAN.set(Plan(tmp_path))
    try:
        store = Store(str(tmp_path / "store"))
        assert import_reward_model(Site(store), RewardModelConfig(base_model=source(model)), NOTHING)
        with pytest.raises(ValueError, match="is no reward model"):
            import_reward_model(Site(store), RewardModelConfig(ready_model=source(model)), NOTHING)
    finally:
        PLAN.reset(token)


def test_weights_in_shards_are_copied(model):
    loaded = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    loaded.save_pretrained(model, max_shard_size="1MB")
    names = set(files(model))
    assert {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)} <= names
    assert "model.safetensors.index.json" in names
