"""Where a row is cut."""

import pytest
from transformers import AutoTokenizer

from tasks.sampling.samples import cut

pytestmark = pytest.mark.usefixtures("one_thread")


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_cut_at_the_limit(tokenizer):
    ids = ids_of(tokenizer, "Once upon a time")
    assert cut(tokenizer, [], ids, {2}, ()) == ("Once upon a time", ids, "length")


def test_cut_after_eos(tokenizer):
    ids = ids_of(tokenizer, "Once upon")
    assert cut(tokenizer, [], [*ids, 2, 0, 0], {2}, ()) == ("Once upon", [*ids, 2], "stop")
    assert cut(tokenizer, [], [2, 0], {2}, ()) == ("", [2], "stop")


def test_cut_before_the_first_stop_string_with_the_tokens_that_show_it(tokenizer):
    ids = ids_of(tokenizer, "Once upon a time there was")
    sample = cut(tokenizer, [], ids, {2}, ("was", "time"))
    assert sample.completion == "Once upon a "
    assert sample.finish_reason == "stop"
    assert tokenizer.decode(sample.token_ids).endswith("time")
    assert "time" not in tokenizer.decode(sample.token_ids[:-1])


def test_a_text_is_not_cleaned(test_data):
    cleans = AutoTokenizer.from_pretrained(test_data / "stories260k", clean_up_tokenization_spaces=True)
    cleans.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    ids = ids_of(cleans, "Once \n . Hm")
    prompt, rest = ids[:-3], ids[-3:]
    assert cleans.decode(ids) == "Once \n. Hm"
    assert cut(cleans, prompt, rest, {2}, ()).completion == cleans.decode(rest, clean_up_tokenization_spaces=False)


def test_a_stop_string_after_eos_does_not_count(tokenizer):
    ids = [*ids_of(tokenizer, "Once"), 2, *ids_of(tokenizer, "upon")]
    assert cut(tokenizer, [], ids, {2}, ("upon",)) == ("Once", ids[: ids.index(2) + 1], "stop")
