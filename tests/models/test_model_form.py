"""The stored form of a model: the same tokenizer in one configuration, ids within the embeddings, a form that saves."""

import json
import shutil

import pytest
import sentencepiece
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tasks.config.sections import ModelSource
from tasks.import_model import model_files
from tasks.lm.tokens import load_tokenizer
from tasks.models.form import mended_generation, stop_ids
from tasks.models.loading import trained_files
from tasks.models.tokenizer_checks import MIXED_TEXT

QUESTION = [{"role": "user", "content": "Hello, zebra"}]


@pytest.fixture
def model(test_data, tmp_path):
    """Return a copy of the story model to spoil."""
    return shutil.copytree(test_data / "stories260k", tmp_path / "model")


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


def add_tokens(model, *tokens):
    """Add tokens to the tokenizer, whose ids begin where the embeddings end: at 512."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_special_tokens(list(tokens))
    tokenizer.save(str(model / "tokenizer.json"))


# The tokenizer


@pytest.mark.parametrize(
    ("name", "kind"), [("spiece.model", "T5Tokenizer"), ("tokenizer.model", "LlamaTokenizer"), ("spm.model", None)]
)
def test_a_tokenizer_in_a_sentencepiece_file_alone(model, tmp_path, name, kind):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(
        "\n".join(f"Once upon a time there was a fox number {i} called {'abcdefgh'[i % 8]}." for i in range(200))
    )
    place = str(tmp_path / "trained")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=place, vocab_size=120, pad_id=3, hard_vocab_limit=False
    )
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    shutil.copyfile(f"{place}.model", model / name)
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    if kind is None:  # a file of a class that the model does not have
        edit(model / "tokenizer_config.json", tokenizer_class="DebertaV2Tokenizer", cls_token="<s>", **marks)
    else:
        edit(model / "tokenizer_config.json", tokenizer_class=kind, extra_ids=0, **marks)
    folder = stored(model)
    text = "Once upon a time there was a fox"
    assert ids(folder, text) == ids(model, text)
    assert len(set(ids(folder, text))) > 5  # not one unknown token after another
    load_tokenizer(folder).save_pretrained(folder)  # as a trainer does
    assert ids(tmp_path / "stored", text, add_special_tokens=False) == ids(model, text, add_special_tokens=False)
    assert name in trained_files(folder, False)


def test_a_tokenizer_in_a_vocabulary_and_merges(model):
    vocabulary = {"<unk>": 0, "</s>": 1, "<pad>": 2, "O": 3, "n": 4, "On": 5, "c": 6, "e": 7, "ce": 8, "\u0120": 9}
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    (model / "vocab.json").write_text(json.dumps(vocabulary))
    (model / "merges.txt").write_text("#version: 0.2\nO n\nc e\n")
    edit(
        model / "tokenizer_config.json",
        tokenizer_class="GPT2Tokenizer",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="</s>",
    )
    folder = stored(model)
    assert ids(folder, "Once Once") == [5, 8, 9, 5, 8]
    assert load_tokenizer(folder).pad_token == "<pad>"


def test_special_tokens_in_a_file_of_their_own_do_not_outvote_what_is_written(model):
    marks = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": "</s>"}
    edit(model / "special_tokens_map.json", **marks, additional_special_tokens=["<|turn|>"])
    edit(model / "tokenizer_config.json", pad_token="<unk>", eos_token="<s>")
    edit(model / "added_tokens.json", **{"<|turn|>": 5})
    before, folder = load_tokenizer(model), stored(model)
    after = load_tokenizer(folder)
    assert (before.pad_token, after.pad_token) == ("</s>", "<unk>")
    assert before.eos_token == after.eos_token == "</s>"
    assert before.all_special_tokens[-1] == after.all_special_tokens[-1] == "<|turn|>"
    rest = json.loads((folder / "special_tokens_map.json").read_text())
    assert rest == {"additional_special_tokens": ["<|turn|>"]}


def test_special_tokens_that_are_all_named_need_no_file_of_their_own(model):
    edit(model / "special_tokens_map.json", pad_token="</s>", eos_token="</s>")
    assert not (stored(model) / "special_tokens_map.json").exists()


# Ids and embeddings


def test_a_pad_token_beyond_the_embeddings_is_replaced(model):
    add_tokens(model, "<|pad|>")
    edit(model / "tokenizer_config.json", pad_token="<|pad|>")
    assert load_tokenizer(model).pad_token_id == 512
    assert load_tokenizer(stored(model)).pad_token_id == 0


def test_an_end_token_beyond_the_embeddings(model):
    add_tokens(model, "<|end|>")
    edit(model / "tokenizer_config.json", eos_token="<|end|>")
    refused(
        model, rf"eos_token in the tokenizer of {model} has id 512, but the model has embeddings for the ids 0 to 511"
    )


def test_a_template_that_writes_tokens_beyond_the_embeddings(model):
    add_tokens(model, "<|im_start|>", "<|im_end|>")
    edit(model / "tokenizer_config.json", chat_template="<|im_start|>{{ messages[0].content }}<|im_end|>")
    refused(model, r"writes '<\|im_start\|>', '<\|im_end\|>' with id 512, .* resize")
    assert stored(model, chat_template="plain")  # then nothing writes them


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(("name", "value"), [("eos_token_id", [2, 512]), ("pad_token_id", 512), ("bos_token_id", 900)])
def test_ids_beyond_the_embeddings_in_configurations(model, file, name, value):
    edit(model / file, **{name: value})
    refused(model, rf"{name} in {model / file} is (512|900), but the model has embeddings for the ids 0 to 511")


def test_embeddings_for_more_ids_than_there_are_tokens(model):
    padded = AutoModelForCausalLM.from_pretrained(model)
    padded.resize_token_embeddings(576, mean_resizing=False)
    padded.save_pretrained(model)
    assert load_tokenizer(stored(model)).pad_token_id == 0


def test_a_tokenizer_that_splits_its_special_tokens(model):
    edit(model / "tokenizer_config.json", split_special_tokens=True)
    refused(
        model, rf"the tokenizer of {model} does not read '</s>', its EOS token, as one token: take split_special_to"
    )


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer", "T5Tokenizer", "BertTokenizer"])
def test_a_tokenizer_whose_vocabulary_was_left_behind(model, kind):
    # transformers makes an empty one, to which each text is no token at all or one unknown token after another.
    (model / "tokenizer.json").unlink()
    edit(model / "tokenizer_config.json", tokenizer_class=kind)
    refused(model, rf"the tokenizer of {model} knows next to no token of a text.*copy the file of its vocabulary")


def test_a_tokenizer_of_another_class_than_its_file(model):
    # As of models that name LlamaTokenizerFast beside a byte-level vocabulary: white space would go without a word.
    edit(model / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    refused(model, r"loaded as GPT2Tokenizer, makes .Onceuponatime.* of .Once upon a time.*to PreTrainedTokenizerFast")
    edit(model / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert stored(model)


def test_a_tokenizer_that_cuts_at_random(model):
    values = json.loads((model / "tokenizer.json").read_text())
    values["model"]["dropout"] = 0.1
    (model / "tokenizer.json").write_text(json.dumps(values))
    refused(model, rf"the tokenizer of {model} cuts texts at random.*set dropout to null in tokenizer.json")


@pytest.mark.parametrize("given", [{"eos_token": ["</s>"]}, {"eos_token": 2}, {"tokenizer_class": 5}])
def test_a_tokenizer_configuration_of_other_types(model, given):
    edit(model / "tokenizer_config.json", **given)
    refused(model, rf"{model} has no tokenizer that loads")


@pytest.mark.parametrize(("name", "value"), [("rms_norm_eps", "1e-5"), ("vocab_size", "512"), ("eos_token_id", "2")])
def test_a_configuration_of_other_types(model, name, value):
    edit(model / "config.json", **{name: value})
    refused(model, rf"the model in {model} cannot be built \(.*{name}.*")


def test_a_model_that_returns_tuples(model):
    edit(model / "config.json", return_dict=False)
    refused(model, rf"return_dict is false in {model}/config.json: take it out")


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
