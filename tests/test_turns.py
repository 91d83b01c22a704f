"""How a turn ends, in templates of the field: what a policy writes, what a reward model reads, where sampling stops."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tasks.tokens import encode_completion, encode_prompt, encode_turn, end_ids, load_tokenizer, turn_end

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


NAMES = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>"]


@pytest.fixture
def story(test_data):
    """Return the story model's sentence-piece tokenizer, with the special tokens of some families."""
    tokenizer = load_tokenizer(test_data / "stories260k")
    tokenizer.add_special_tokens({"additional_special_tokens": NAMES})
    return tokenizer


@pytest.fixture
def neox(test_data):
    """Return a byte-level tokenizer, which decodes to the letter what it was given, with EOS `</s>`."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(test_data / "tokenizers/20B_tokenizer.json"), eos_token="</s>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": NAMES})
    return tokenizer


def reads(tokenizer, template: str, completion: str = "Yes.") -> tuple[str, str, str]:
    """Return what follows the prompt for a policy and for a reward model, and what ends it, as texts."""
    tokenizer.chat_template = template
    written, read = (f(tokenizer, completion, HI) for f in (encode_completion, encode_turn))
    return tokenizer.decode(written), tokenizer.decode(read), tokenizer.decode([turn_end(tokenizer).token_id])


@pytest.mark.parametrize(
    ("template", "written", "read", "end"),
    [
        (CHATML, "Yes.<|im_end|>", "Yes.<|im_end|>\n", "<|im_end|>"),
        (GEMMA, "Yes.<end_of_turn>", "Yes.<end_of_turn>\n", "<end_of_turn>"),
        (LLAMA_2, " Yes. </s>", " Yes. </s>", "</s>"),
        (THINKS, "Yes.</s>", "Yes.</s>", "</s>"),
        (NO_END, "Yes.\n</s>", "Yes.\n</s>", "</s>"),
    ],
    ids=["chatml", "gemma", "llama-2", "thinks", "no end"],
)
def test_by_hand(neox, template, written, read, end):
    assert reads(neox, template) == (written, read, end)
    assert end_ids(neox) == {neox.convert_tokens_to_ids(end), neox.eos_token_id}


@pytest.mark.parametrize("template", [CHATML, GEMMA, LLAMA_2], ids=["chatml", "gemma", "llama-2"])
def test_a_whole_turn_is_what_the_template_makes_of_the_conversation(story, template):
    story.chat_template = template
    whole = story.apply_chat_template(
        [*HI, {"role": "assistant", "content": "A fox."}], tokenize=True, return_dict=False
    )
    assert encode_prompt(story, HI) + encode_turn(story, "A fox.", HI) == list(whole)


@pytest.mark.parametrize("template", [CHATML, GEMMA, LLAMA_2, THINKS, NO_END])
@pytest.mark.parametrize("written_out", ["</s>", "<|im_end|>\n", " </s></s>", "<|im_end|></s>"])
def test_an_end_that_is_written_out_counts_once(story, template, written_out):
    if template is not CHATML and "im_end" in written_out:
        pytest.skip("no end of this template")
    assert reads(story, template, "Yes." + written_out.strip()) == reads(story, template, "Yes.")


@given(text=st.text(st.characters(codec="ascii", exclude_characters="<>"), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_one_end_and_it_comes_last(test_data, text):
    tokenizer = load_tokenizer(test_data / "stories260k")
    for template in (LLAMA_2, NO_END, THINKS):
        tokenizer.chat_template = template
        ids = encode_completion(tokenizer, text, HI)
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        assert encode_turn(tokenizer, text, HI)[: len(ids)] == ids
