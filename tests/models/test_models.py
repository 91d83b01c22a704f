"""Models come in: what is written into a folder, what is left out of it, what names it."""

import json
import shutil

import pytest
from imports import edit, files, source, stored
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.import_model import import_policy, import_reward_model
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.lm.turns import PLAIN_TEMPLATE, TEXT_TEMPLATE
from tasks.models.loading import model_folder
from tasks.pipeline.dry_run import PLAN, Plan
from tasks.pipeline.site import Site
from tasks.store.artifacts import NOTHING, Artifact, files_digest
from tasks.store.folders import Store

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
