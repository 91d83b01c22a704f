"""Where the ids end that show a stop string: as a search of the whole text after each id finds it, in linear time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tasks.sampling import samples
from tasks.sampling.samples import ids_until

pytestmark = pytest.mark.usefixtures("one_thread")
LETTERS = st.text("abn \nEND.\u00e9\u597d\U0001f600", max_size=40)
STOPS = st.lists(st.text("abn \nEND.\u00e9\u597d\U0001f600", min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.fixture(scope="module", params=["stories260k", "bytes"])
def tokenizer(request, test_data):
    """Return a tokenizer of pieces and bytes for what has none, and one of bytes alone."""
    if request.param == "stories260k":
        return AutoTokenizer.from_pretrained(test_data / "stories260k")
    return byte_tokenizer()


def byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*letters, "EN", "\u0120a"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("E", "N"), ("\u0120", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def reader(tokenizer, counts=None):
    def read(ids):
        if counts is not None:
            counts.append(len(ids))
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    return read


def naive(read, prompt, ids, stop):
    """Search the whole text after each id."""
    texts = (read(prompt + ids[:n])[len(read(prompt)) :] for n in range(1, len(ids) + 1))
    return next((n for n, text in enumerate(texts, 1) if any(string in text for string in stop)), len(ids))


@given(before=LETTERS, text=LETTERS, stop=STOPS, block=st.integers(1, 9))
def test_the_same_ids_as_a_search_of_the_whole_text_after_each(tokenizer, before, text, stop, block):
    prompt, ids = (tokenizer(own, add_special_tokens=False)["input_ids"] for own in (before, text))
    read = reader(tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "BLOCK", block)
        assert ids_until(read, prompt, ids, stop) == naive(read, prompt, ids, stop)


def test_a_stop_string_is_found_where_it_begins_in_a_block_and_ends_in_the_next(tokenizer, monkeypatch):
    monkeypatch.setattr(samples, "BLOCK", 5)
    ids = [id_ for letter in "abcdEND." for id_ in tokenizer.convert_tokens_to_ids([letter])]
    assert ids_until(reader(tokenizer), [], ids, ["END"]) == 7


def test_each_id_is_read_a_few_times_however_many_there_are(tokenizer):
    (letter,) = tokenizer.convert_tokens_to_ids(["a"])
    for number in (1_000, 8_000):
        counts = []
        assert ids_until(reader(tokenizer, counts), [], [letter] * number, ["END", "b"]) == number
        assert sum(counts) < 4 * number
