"""What a tokenizer that comes in is checked for: that it is the one its files mean, and reads the same each time."""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.errors import ConfigurationError
from tasks.pipeline.progress import log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIXED_TEXT = (
    "Once upon a time, there's a little fox.  Two  spaces,\ttabs\n\n\nlines; 1234567890 3.14 0x7f \u00e9t\u00e9 "
    "na\u00efve stra\u00dfe \u0416\u0438\u043b\u0438-\u0431\u044b\u043b\u0438 \u4f60\u597d\uff0c\u4e16\u754c "
    "\u3053\u3093\u306b\u3061\u306f \uc548\ub155 \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 "
    "\U0001f98a def f(x):\n    return {'a': [x**2]}  "
)
"""Text in several scripts, with digits, runs of spaces and code, that two equal tokenizers cut alike."""
SPACED_TEXT = "Once upon a time"
"""Words of it, which are no more where white space is lost."""
LEAST_TOKENS = 4
"""Different tokens that any tokenizer finds in it."""


def check_tokenizer(own: "PreTrainedTokenizerBase", stored: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Refuse a tokenizer that another takes the place of once it is stored, or saved with a trained model."""
    marks = [token for token in own.all_special_tokens if token != own.pad_token or token == own.eos_token]
    if own.eos_token_id not in own(own.eos_token, add_special_tokens=False)["input_ids"]:
        raise ConfigurationError(
            f"the tokenizer of {folder} does not read {own.eos_token!r}, its EOS token, as one token: take "
            "split_special_tokens out of tokenizer_config.json, or name a token that is in the vocabulary"
        )
    _check_vocabulary(own, folder)
    text = MIXED_TEXT + "".join(marks)
    for whole in (False, True):
        before, after = (tokenizer(text, add_special_tokens=whole)["input_ids"] for tokenizer in (own, stored))
        if before != after or own.decode(before) != stored.decode(after) or own.eos_token_id != stored.eos_token_id:
            raise ConfigurationError(
                f"the tokenizer of {folder} becomes another one where only its known files are kept: save it again "
                "with AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )


def _check_vocabulary(own: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Refuse a tokenizer without its vocabulary, at random, or of a class that loses what its tokenizer.json keeps."""
    from tokenizers import Tokenizer

    ids, kind = own(MIXED_TEXT, add_special_tokens=False)["input_ids"], type(own).__name__
    if len(set(ids) - {own.unk_token_id}) < LEAST_TOKENS:
        raise ConfigurationError(
            f"the tokenizer of {folder} knows next to no token of a text in several languages: copy the file of its "
            "vocabulary there (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)"
        )
    if not (folder / "tokenizer.json").is_file() or not own.is_fast:
        return
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if getattr(saved.model, "dropout", None):
        raise ConfigurationError(
            f"the tokenizer of {folder} cuts texts at random, so no prompt has the same tokens twice: set dropout to "
            "null in tokenizer.json"
        )
    as_saved = saved.encode(MIXED_TEXT, add_special_tokens=False).ids
    remedy = "set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json"
    if SPACED_TEXT in saved.decode(as_saved) and SPACED_TEXT not in (found := own.decode(ids)):
        raise ConfigurationError(
            f"the tokenizer of {folder}, loaded as {kind}, makes {found[:30]!r} of {MIXED_TEXT[:30]!r}, which its "
            f"tokenizer.json does not: {remedy}"
        )
    if ids != as_saved:
        log(
            f"the tokenizer of {folder}, loaded as {kind}, does not cut as its tokenizer.json: {remedy}, if that counts"
        )
