"""Tokenizers in every form that a folder may hold them in, and the ids that have embeddings."""

import json
import shutil

import pytest
import sentencepiece
from forms import edit, ids, refused, stored
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from tasks.lm.tokens import load_tokenizer
from tasks.models.loading import trained_files


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
