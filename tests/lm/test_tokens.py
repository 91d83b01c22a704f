"""Prompt and completion ids with two real tokenizers: a sentence-piece one with BOS, a byte-level one without."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tasks.lm.context import context_length
from tasks.lm.tokens import (
    encode_completion,
    encode_prompt,
    load_tokenizer,
)
from tasks.lm.turns import PLAIN_TEMPLATE, TEXT_TEMPLATE

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=30)
"""No `<`, so that no text spells a special token."""
ANSWERS = TEXTS.filter(lambda text: not text[0].isspace())
SYSTEM = {"role": "system", "content": "Be kind."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def conversations():
    turns = st.lists(st.tuples(TEXTS, TEXTS), max_size=2)
    return st.builds(
        lambda system, turns, last: [
            *([SYSTEM] if system else []),
            *(message for asked, told in turns for message in (user(asked), assistant(told))),
            user(last),
        ],
        st.booleans(),
        turns,
        TEXTS,
    )


@pytest.fixture(scope="module")
def story(test_data):
    tokenizer = load_tokenizer(test_data / "stories260k")
    tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def neox(test_data):
    file = str(test_data / "tokenizers/20B_tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|endoftext|>")
    tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


@pytest.fixture(params=["story", "neox"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def rendered(tokenizer, messages, template=PLAIN_TEMPLATE):
    return tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)


# By hand


def test_ids_by_hand(neox):
    hi = [12764]
    ids = encode_prompt(neox, [user("Hi")])
    assert neox.convert_ids_to_tokens(ids) == ["Human", ":", "Ċ", "Hi", "Ċ", "Ċ", "Ass", "istant", ":", "Ċ"]
    assert encode_completion(neox, "Hi") == [*hi, neox.eos_token_id]
    assert encode_completion(neox, "") == [neox.eos_token_id]


def test_the_plain_template_by_hand(story):
    messages = [SYSTEM, user("Hi"), assistant("Yes?"), user("Bye")]
    expected = "<s>Be kind.\n\nHuman:\nHi\n\nAssistant:\nYes?</s>\n\nHuman:\nBye\n\nAssistant:\n"
    assert rendered(story, messages) == expected


def test_the_text_template_by_hand(story, neox):
    messages = [user("Once upon"), assistant(" a time"), user(" there")]
    assert rendered(story, messages, TEXT_TEMPLATE) == "<s>Once upon a time there"
    assert rendered(neox, messages, TEXT_TEMPLATE) == "Once upon a time there"


def test_a_story_continues_after_one_bos(story, test_data):
    tokenizer = load_tokenizer(test_data / "stories260k")
    tokenizer.chat_template = TEXT_TEMPLATE
    tokens = tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, [user("Once upon a time")]))
    assert tokens == ["<s>", "▁Once", "▁upon", "▁a", "▁time"]


# Laws


@given(messages=conversations())
@settings(max_examples=50, deadline=None)
def test_one_bos_and_it_comes_first(story, messages):
    ids = encode_prompt(story, messages)
    assert ids[0] == story.bos_token_id
    assert ids.count(story.bos_token_id) == 1


@given(messages=conversations(), completion=TEXTS)
@settings(max_examples=50, deadline=None)
def test_a_tokenizer_that_adds_bos_itself_adds_no_second_one(test_data, messages, completion):
    tokenizer = load_tokenizer(test_data / "stories260k")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.chat_template = PLAIN_TEMPLATE
    assert tokenizer("Hi")["input_ids"][0] == 1
    sequence = encode_prompt(tokenizer, messages) + encode_completion(tokenizer, completion)
    assert sequence.count(1) == 1


@given(messages=conversations(), completion=TEXTS)
@settings(max_examples=50, deadline=None)
def test_a_completion_ends_with_its_only_eos(neox, messages, completion):
    ids = encode_completion(neox, completion)
    assert ids[-1] == neox.eos_token_id
    assert ids.count(neox.eos_token_id) == 1
    assert neox.decode(ids[:-1]) == unicodedata.normalize("NFC", completion)  # as this tokenizer does


@pytest.mark.parametrize("name", ["story", "neox"])
def test_no_token_spans_prompt_and_completion(request, name):
    tokenizer = request.getfixturevalue(name)

    @given(messages=conversations(), completion=ANSWERS)
    @settings(max_examples=80, deadline=None)
    def law(messages, completion):
        prompt = rendered(tokenizer, messages)
        whole = tokenizer(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
        assert not [(a, b) for a, b in whole["offset_mapping"] if a < len(prompt) < b]
        ids = encode_prompt(tokenizer, messages)
        assert whole["input_ids"][: len(ids)] == ids

    law()


@given(messages=conversations(), completion=ANSWERS, more=TEXTS)
@settings(max_examples=50, deadline=None)
def test_a_conversation_goes_on_with_the_ids_that_it_had(neox, messages, completion, more):
    sequence = encode_prompt(neox, messages) + encode_completion(neox, completion)
    longer = encode_prompt(neox, [*messages, assistant(completion), user(more)])
    assert longer[: len(sequence)] == sequence


def test_a_prompt_has_the_same_ids_whatever_its_neighbours(tokenizer):
    # Nothing is padded or truncated, however long.
    long = [user("word " * 3000)]
    assert len(encode_prompt(tokenizer, long)) > 3000
    assert encode_prompt(tokenizer, [user("Hi")]) == encode_prompt(tokenizer, [user("Hi")])
    assert len(encode_completion(tokenizer, "word " * 3000)) > 3000


@pytest.mark.parametrize("completion", [", there was a cat.", "ly ran", " Then she ran."])
def test_a_sampled_text_gets_the_ids_it_was_sampled_with(story, completion):
    # DESIGN section 6: tokenizing prompt + completion must give the sampler's ids.
    before = encode_prompt(story, [user("Hi")])
    after = story(rendered(story, [user("Hi")]) + completion, add_special_tokens=False)["input_ids"]
    assert before + encode_completion(story, completion)[:-1] == after


# Errors


def test_a_template_that_refuses_names_the_roles(story, test_data):
    tokenizer = load_tokenizer(test_data / "stories260k")
    tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
    with pytest.raises(ValueError, match=r"refuses .* \['system', 'user'\]: no system messages") as caught:
        encode_prompt(tokenizer, [SYSTEM, user("Hi")])
    assert isinstance(caught.value.__cause__, TemplateError)


def test_a_folder_without_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=rf"(?s){tmp_path} has no tokenizer that loads .*save_pretrained"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 1024}, 1024),
        ({"max_seq_len": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 77}}, 77),
        ({"n_ctx": 256}, 256),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 130, "pad_token_id": 0}, 129),
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"vocab_size": 5}, 1 << 30),
        ({"max_position_embeddings": None}, 1 << 30),
        ({"max_position_embeddings": -1}, 1 << 30),
        ({"seq_length": 4096, "model_type": "of no library"}, 4096),
        ({"model_type": "camembert", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 3}, 512),  # it counts from 1 whatever
        ({"model_type": "opt", "max_position_embeddings": 2048, "pad_token_id": 1}, 2048),
        ({"model_type": "esm", "max_position_embeddings": 1026, "position_embedding_type": "rotary"}, 1026),
        ({"model_type": "gpt2"}, 1024),  # the default of its class
        ({"model_type": "gpt2", "max_position_embeddings": 64}, 64),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "max_position_embeddings": 99}}, 99),
        ({"llm_config": {"model_type": "qwen2", "max_position_embeddings": 88}}, 88),
    ],
)
def test_context_length_by_its_names(tmp_path, config, length):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(tmp_path) == length


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "mpnet", "opt", "gpt2", "longformer", "bert"])
def test_a_model_reads_as_many_tokens_as_its_context_and_no_more(tmp_path, kind, one_thread):
    import torch
    from transformers import AutoConfig, AutoModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    shape |= (
        {"ffn_dim": 16, "word_embed_proj_dim": 16, "attention_window": [4]} if kind in ("opt", "longformer") else {}
    )
    config = AutoConfig.for_model(kind, vocab_size=50, max_position_embeddings=36, pad_token_id=1, **shape)
    config.save_pretrained(tmp_path)
    length, model = context_length(tmp_path), AutoModel.from_config(config).eval()
    with torch.inference_mode():
        model(input_ids=torch.full((1, length), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, length + 1), 7))
