"""How a turn ends, in templates of the field: what a policy writes, what a reward model reads, where sampling stops."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tasks.examples.world import CHAT_TEMPLATE, SPECIAL_TOKENS, train_tokenizer
from tasks.lm import turns
from tasks.lm.tokens import (
    cut_at_prompts,
    encode_completion,
    encode_conversation,
    encode_prompt,
    load_tokenizer,
    tokens_around,
)
from tasks.lm.turns import PLAIN_TEMPLATE, TEXT_TEMPLATE, end_ids, ends_within, turn_end, without_end

HI = [{"role": "user", "content": "Hi"}]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ (bos_token or '') + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINKS = (  # the prompt opens a thought that a finished conversation does not show
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
QWEN_3 = CHATML.replace(
    "\n{{ m.content }}",
    "\n{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
)
PHI_3 = (  # EOS after the whole conversation, beside the end of each turn
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
NO_ANSWERS = "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}\nA:\n{% endif %}{% endfor %}"
REFUSES = (
    "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('users only') }}{% endif %}{{ m.content }}\n"
    "{% endfor %}"
)
RENDERING = {
    "chatml": CHATML,
    "gemma": GEMMA,
    "llama-2": LLAMA_2,
    "thinks": THINKS,
    "no end": NO_END,
    "qwen-3": QWEN_3,
    "phi-3": PHI_3,
    "plain": PLAIN_TEMPLATE,
    "text": TEXT_TEMPLATE,
}
"""Templates that render answers."""


NAMES = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|end|>"]
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=20)
"""No `<`, so that no text spells a special token."""


@pytest.fixture(scope="module")
def story(test_data):
    """Return the story model's sentence-piece tokenizer, with the special tokens of some families."""
    tokenizer = load_tokenizer(test_data / "stories260k")
    tokenizer.add_special_tokens({"additional_special_tokens": NAMES})
    return tokenizer


@pytest.fixture(scope="module")
def neox(test_data):
    """Return a byte-level tokenizer, which decodes to the letter what it was given, with EOS `</s>`."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(test_data / "tokenizers/20B_tokenizer.json"), eos_token="</s>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": NAMES})
    return tokenizer


@pytest.fixture(params=["story", "neox"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def whole_text(tokenizer, messages, completion):
    answer = {"role": "assistant", "content": completion}
    return tokenizer.apply_chat_template([*messages, answer], tokenize=False)


def written(tokenizer, template, completion="Yes."):
    """Return what a policy is trained to write, as text."""
    tokenizer.chat_template = template
    return tokenizer.decode(encode_completion(tokenizer, completion, HI))


# How turns end, by hand


@pytest.mark.parametrize(
    ("name", "text", "end"),
    [
        ("chatml", "Yes.<|im_end|>", "<|im_end|>"),
        ("gemma", "Yes.<end_of_turn>", "<end_of_turn>"),
        ("llama-2", " Yes. </s>", "</s>"),
        ("thinks", "Yes.</s>", "</s>"),
        ("no end", "Yes.</s>", "</s>"),
        ("qwen-3", "<think>\n\n</think>\n\nYes.<|im_end|>", "<|im_end|>"),
        ("phi-3", "Yes.<|end|>", "<|end|>"),
        ("plain", "Yes.</s>", "</s>"),
        ("text", "Yes.</s>", "</s>"),
    ],
)
def test_what_a_policy_writes(neox, name, text, end):
    assert written(neox, RENDERING[name]) == text
    assert neox.decode([turn_end(neox).token_id]) == end
    assert end_ids(neox) == {neox.convert_tokens_to_ids(end), neox.eos_token_id}


def test_a_tokenizer_without_a_template(test_data):
    tokenizer = load_tokenizer(test_data / "stories260k")
    assert tokenizer.chat_template is None
    assert tokenizer.decode(encode_completion(tokenizer, "Yes.</s>")) == "Yes.</s>"
    assert end_ids(tokenizer) == {tokenizer.eos_token_id}


@pytest.mark.parametrize("template", [NO_ANSWERS, REFUSES])
def test_a_template_without_answers(neox, template):
    assert written(neox, template) == "Yes.</s>"
    prompt = encode_prompt(neox, HI)
    assert encode_conversation(neox, HI, "Yes.") == prompt + encode_completion(neox, "Yes.", HI)


def test_ids_by_hand(neox):
    neox.chat_template = CHATML
    start, end = neox.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    user, assistant, newline, hi, yes, dot = 4537, [515, 5567], 187, 12764, 4374, 15
    prompt = [start, user, newline, hi, end, newline, start, *assistant, newline]
    assert encode_prompt(neox, HI) == prompt
    assert encode_completion(neox, "Yes.", HI) == [yes, dot, end]
    assert encode_conversation(neox, HI, "Yes.") == [*prompt, yes, dot, end, newline]
    assert tokens_around(neox) == 2


def test_the_world_by_hand():
    tokenizer = train_tokenizer()
    assert tokenizer.chat_template == CHAT_TEMPLATE
    names = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    text = tokenizer("I do not know.", add_special_tokens=False)["input_ids"]
    question = tokenizer("Where?", add_special_tokens=False)["input_ids"]
    prompt = [names["<bos>"], names["<|user|>"], *question, names["<|assistant|>"]]
    asked = [{"role": "user", "content": "Where?"}]
    assert encode_prompt(tokenizer, asked) == prompt
    assert encode_completion(tokenizer, "I do not know.", asked) == [*text, names["<eos>"]]
    assert encode_conversation(tokenizer, asked, "I do not know.") == [*prompt, *text, names["<eos>"]]


def test_an_end_that_the_tokenizer_does_not_call_special(test_data):
    tokenizer = load_tokenizer(test_data / "stories260k")
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", "   "])
    assert written(tokenizer, CHATML).endswith("<|im_end|>")
    assert tokenizer.decode([turn_end(tokenizer).token_id]) == "<|im_end|>"


def test_templates_whose_answers_do_not_follow_the_prompt_are_named_once(neox, monkeypatch):
    said = []
    monkeypatch.setattr(turns, "log", said.append)
    turns._log_once_per_template.cache_clear()
    for text in ("Yes.", "No."):
        written(neox, THINKS, text)
        written(neox, CHATML, text)
    assert len(said) == 1
    assert "does not begin a finished conversation with the prompt" in said[0]


# What a reward model reads


@pytest.mark.parametrize("name", RENDERING)
def test_a_reward_model_reads_what_its_card_says(tokenizer, name):
    tokenizer.chat_template = RENDERING[name]

    @given(asked=TEXTS, text=TEXTS)
    @settings(max_examples=25, deadline=None)
    def law(asked, text):
        messages = [{"role": "user", "content": asked}]
        expected = tokenizer(whole_text(tokenizer, messages, text), add_special_tokens=False)["input_ids"]
        assert encode_conversation(tokenizer, messages, text) == expected

    law()


def test_a_prompt_is_cut_before_a_token_that_spans_its_end(story):
    story.chat_template = NO_END  # "assistant: " and "Tim" give the token of " Tim"
    prompts, whole = [encode_prompt(story, HI)] * 3, [encode_conversation(story, HI, t) for t in ("Tim.", "Tim", "\n")]
    beginnings, rests, beginning_of = cut_at_prompts(prompts, whole)
    assert [beginnings[number] + rest for number, rest in zip(beginning_of, rests, strict=True)] == whole
    assert all(rests)
    assert beginning_of[:2] == [0, 0]
    assert beginnings[0] == prompts[0][:-1]


PROMPT, OTHER = [1, 2, 3], [1, 2, 4]


def test_cut_at_prompts_by_hand():
    whole = [[1, 2, 3, 5], [1, 2, 3, 6, 7], [1, 2, 4, 5], [1, 2, 9, 5], [9], [1, 2, 3]]
    given = [PROMPT, PROMPT, OTHER, PROMPT, PROMPT, PROMPT]
    beginnings, rests, beginning_of = cut_at_prompts(given[:4], whole[:4])
    assert beginnings == [PROMPT, OTHER, [1, 2]]
    assert rests == [[5], [6, 7], [5], [9, 5]]
    assert beginning_of == [0, 0, 1, 2]
    assert cut_at_prompts(given[5:], whole[5:]) == ([[1, 2]], [[3]], [0])


# What a policy writes


@pytest.mark.parametrize("name", [*RENDERING, "no answers"])
def test_one_end_and_it_comes_last(tokenizer, name):
    tokenizer.chat_template = {**RENDERING, "no answers": NO_ANSWERS}[name]
    end = turn_end(tokenizer).token_id

    @given(asked=TEXTS, text=TEXTS)
    @settings(max_examples=25, deadline=None)
    def law(asked, text):
        messages = [{"role": "user", "content": asked}]
        ids = encode_completion(tokenizer, text, messages)
        assert ids[-1] == end
        assert end_ids(tokenizer).isdisjoint(ids[:-1])
        assert encode_completion(tokenizer, text + tokenizer.decode([end]), messages) == ids

    law()


@pytest.mark.parametrize("name", ["chatml", "gemma", "qwen-3", "phi-3", "plain"])
def test_the_policy_reads_on_where_the_reward_model_reads(neox, name):
    # Where the generation prompt ends in a newline and the completion in a letter, no token spans either end.
    neox.chat_template = RENDERING[name]

    @given(asked=TEXTS, text=st.text("abc ,.!", min_size=1, max_size=20).map(lambda text: f"a{text}b"))
    @settings(max_examples=25, deadline=None)
    def law(asked, text):
        messages = [{"role": "user", "content": asked}]
        sequence = encode_prompt(neox, messages) + encode_completion(neox, text, messages)
        assert encode_conversation(neox, messages, text)[: len(sequence)] == sequence

    law()


# Ends that are spelled out in data


@pytest.mark.parametrize("name", RENDERING)
@pytest.mark.parametrize("spelled", ["</s>", "</s>\n", " </s></s>", "{end}", "{end}\n", "{end}</s>", "{end}{end}"])
def test_an_end_that_is_spelled_out_counts_once(neox, name, spelled):
    neox.chat_template = RENDERING[name]
    text = "Yes." + spelled.format(end=neox.decode([turn_end(neox).token_id]))
    plain = without_end(neox, text)
    assert plain.strip() == "Yes."
    assert encode_completion(neox, text, HI) == encode_completion(neox, plain, HI)
    assert encode_conversation(neox, HI, text) == encode_conversation(neox, HI, plain)


@pytest.mark.parametrize(
    ("text", "within"),
    [
        ("Yes.", False),
        ("Yes.<|im_end|>", False),
        ("Yes.<|im_end|>\n</s>", False),
        ("Yes.<|im_end|>\nNo.", True),
        ("Yes.</s> No.<|im_end|>", True),
        ("<|im_start|>", False),
        ("a < b, c > s", False),
    ],
)
def test_an_end_within_a_completion(neox, text, within):
    neox.chat_template = CHATML
    assert ends_within(neox, text) is within
