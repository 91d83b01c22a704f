"""Generation settings and chat templates: mended, kept, refused."""

import json
import shutil

import pytest
from forms import edit, ids, refused, stored
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tasks.lm.tokens import load_tokenizer
from tasks.models.form import mended_generation, stop_ids

# Generation settings, which are saved with every checkpoint


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"temperature": 0.9, "top_p": 0.6}, {"temperature": 0.9, "top_p": 0.6, "do_sample": True}),
        ({"temperature": 0.9, "do_sample": False}, {"do_sample": False}),
        ({"length_penalty": 2.0, "early_stopping": True}, {}),
        ({"length_penalty": 2.0, "num_beams": 4}, {"length_penalty": 2.0, "num_beams": 4}),
        ({"pad_token_id": -1}, {}),
    ],
)
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_generation_settings_that_cannot_be_saved_are_mended(model, given, kept, file):
    (model / "generation_config.json").unlink()
    ends = {} if file == "config.json" else {"eos_token_id": 2}
    edit(model / file, **ends, **given)
    folder = stored(model)
    assert mended_generation(folder) is None
    policy = AutoModelForCausalLM.from_pretrained(folder)
    policy.save_pretrained(folder)
    found = GenerationConfig.from_pretrained(folder)
    assert {name: getattr(found, name) for name in kept} == kept
    assert found.eos_token_id == 2
    assert all(getattr(found, name) in (None, 0) or name in kept for name in given)


@pytest.mark.parametrize("ends", ["2", "</s>", -1, [2, -1], [[2]], {"a": 2}, 2.0, True, ["2"]])
def test_end_tokens_that_are_no_ids(model, ends):
    edit(model / "generation_config.json", eos_token_id=ends)
    folder = stored(model)
    assert "eos_token_id" not in json.loads((folder / "generation_config.json").read_text())
    assert stop_ids(folder, load_tokenizer(folder)) == stop_ids(model, load_tokenizer(folder)) == {2}


def test_a_number_that_is_no_bound(model):
    edit(model / "generation_config.json", max_new_tokens=0, top_k=7, do_sample=True)
    assert json.loads((stored(model) / "generation_config.json").read_text())["top_k"] == 7
    edit(model / "config.json", max_new_tokens=0)
    refused(model, rf"the model in {model} cannot be built \(ValueError: .max_new_tokens. must be greater than 0")


def test_generation_settings_that_can_be_saved_stay_as_they_are(model):
    before = (model / "generation_config.json").read_bytes()
    assert (stored(model) / "generation_config.json").read_bytes() == before


def test_a_file_that_is_no_json(model):
    (model / "generation_config.json").write_text("{")
    refused(model, rf"{model / 'generation_config.json'} is no JSON")


# Chat templates


@pytest.mark.parametrize("template", ["{{ bos_token }}", "a\n{% for message in messages %}{% endfor %}", "x" * 300])
def test_a_template_in_place_of_its_path(model, template):
    refused(model, "chat_template = .* must be `plain`, `text` or the path of a Jinja file", chat_template=template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for message in messages %}", "fails on a question .TemplateSyntaxError"),
        ("{{ messages[0].content + 1 }}", "fails on a question .TypeError"),
        (
            "{{ raise_exception('never') }}",
            "fails on a question .TemplateError: never",
        ),
        ("{{ nothing.of.the.kind }}", "fails on a question .UndefinedError"),
        ("{{ bos_token }}{% for m in messages %}{{ m.text }}{% endfor %}", "leaves out what the user says"),
    ],
)
def test_templates_that_do_not_work(model, template, message):
    edit(model / "tokenizer_config.json", chat_template=template)
    refused(model, rf"the chat template of {model} {message}.*: mend it, or set chat_template to `plain`")
    path = model.parent / "mine.jinja"
    path.write_text(template)
    edit(model / "tokenizer_config.json", chat_template=None)
    refused(model, message, chat_template=str(path))


def test_a_template_that_wants_a_system_message_is_none_of_our_business(model):
    template = "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[1].content }}"
    edit(model / "tokenizer_config.json", chat_template=template)
    assert load_tokenizer(stored(model)).chat_template == template


def test_a_template_that_leaves_the_heading_of_the_answer_to_the_policy(model):
    turns = "{% for m in messages %}{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    edit(model / "tokenizer_config.json", chat_template=turns)
    refused(model, rf"the chat template of {model} writes 'assistant.n' before an answer.*add_generation_prompt")
    assert stored(model, "reward_base")  # a reward model reads finished conversations alone
    edit(model / "tokenizer_config.json", chat_template=turns + "{% if add_generation_prompt %}assistant\n{% endif %}")
    shutil.rmtree(model.parent / "stored")
    assert stored(model)


def test_named_templates_without_a_default(model):
    named = [{"name": name, "template": "{{ messages[0].content }}"} for name in ("rag", "tool_use")]
    edit(model / "tokenizer_config.json", chat_template=named)
    refused(model, "templates named rag, tool_use and none named default")
    assert stored(model, chat_template="plain")


def test_the_stored_tokenizer_reads_as_the_source_does(model):
    folder = stored(model)
    assert ids(folder) == ids(model)
    own = AutoTokenizer.from_pretrained(model)
    assert own.decode(ids(folder)) == own.decode(ids(model))


def test_generation_stops_where_the_template_ends_a_turn(model):
    template = model.parent / "ends.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<s>\n{% endfor %}assistant: ")
    settings = json.loads((stored(model, chat_template=str(template)) / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [1, 2]


def test_generation_settings_that_stop_there_stay_as_they_are(model):
    folder = stored(model)
    assert (folder / "generation_config.json").read_bytes() == (model / "generation_config.json").read_bytes()
