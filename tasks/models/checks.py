"""What a model that comes in is checked for, in the form in which it would be stored, before anything is computed."""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.errors import ConfigurationError
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.lm.turns import PLAIN_TEMPLATE, PROBE, after_prompt, end_ids, render
from tasks.models.tokenizer_checks import MIXED_TEXT, check_tokenizer
from tasks.models.weight_files import check_tied, check_values, read_json, register_oasst, shorten
from tasks.models.weights import Role, embedding_rows, outline
from tasks.pipeline.progress import log
from tasks.store.artifacts import Content

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""Settings of a model that name tokens."""


def check_model(files: Mapping[str, Content], folder: Path, role: Role, trust_remote_code: bool) -> None:
    """Check that files make a model that can be loaded, used in its role, trained and saved.

    Args:
        files: The model in the form in which it would be stored.
        folder: Where it comes from.
        role: What it is to be.
        trust_remote_code: Run code that comes with it.

    Raises:
        ConfigurationError: Says what is wrong, in which file, and what to do.
    """
    quantised = read_json(folder / "config.json").get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "some method") if isinstance(quantised, dict) else quantised
        raise ConfigurationError(
            f"the weights of {folder} are quantised ({method}, by quantization_config in config.json), and training "
            "needs them in full precision: name the model that they were made from, or save it dequantised"
        )
    if read_json(folder / "config.json").get("return_dict") is False:
        raise ConfigurationError(
            f"return_dict is false in {folder}/config.json: take it out, or nothing reads the model"
        )
    with _laid_out(files, folder) as stored:
        tokenizer = load_tokenizer(stored, trust_remote_code)
        check_tokenizer(load_tokenizer(folder, trust_remote_code), tokenizer, folder)
        if role == "reward_model":
            _check_reward_model(folder, trust_remote_code, tokenizer)
        elif role == "policy":
            _check_generation_prompt(tokenizer, stored)
        _check_ids(tokenizer, stored, embedding_rows(stored, trust_remote_code))
        model = outline(stored, role, trust_remote_code)
        _check_saved(model, tokenizer, stored, trust_remote_code)
        check_tied(stored, model.all_tied_weights_keys)
        check_values(stored)


@contextlib.contextmanager
def _laid_out(files: Mapping[str, Content], folder: Path) -> Iterator[Path]:
    """Give a folder with the files as they would be stored, large files as links; errors name the source folder."""
    with tempfile.TemporaryDirectory(prefix="rs-dpo-model-") as name:
        _lay_out(files, Path(name))
        try:
            yield Path(name)
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace(name, str(folder))) from error


def _lay_out(files: Mapping[str, Content], folder: Path) -> None:
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).symlink_to(content.resolve())


def _check_ids(tokenizer: "PreTrainedTokenizerBase", stored: Path, rows: int) -> None:
    """Refuse special tokens, and tokens of the chat template, that the model has no embedding for."""
    remedy = (
        f"but the model has embeddings for the ids 0 to {rows - 1}: resize them (model.resize_token_embeddings, then "
        "train them), or name a token that has one"
    )
    tokens = {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokenizer.special_tokens_map.items()}
    for name in ("eos_token", "bos_token", "pad_token"):
        if (number := tokens.get(name)) is not None and number >= rows:
            raise ConfigurationError(f"{name} in the tokenizer of {stored} has id {number}, {remedy}")
    for path, name in itertools.product((stored / "config.json", stored / "generation_config.json"), IDS):
        value = read_json(path).get(name)
        ids = value if isinstance(value, list) else [value]
        if above := [number for number in ids if isinstance(number, int) and number >= rows]:
            raise ConfigurationError(f"{name} in {path} is {above[0]}, {remedy}")
    used = _rendered(tokenizer, stored)
    if above := sorted({number for number in used if number >= rows}):
        names = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(above)[:3]))
        raise ConfigurationError(f"the chat template of {stored} writes {names} with id {above[0]}, {remedy}")
    if beyond := sorted(token for token, number in tokenizer.get_vocab().items() if number >= rows):
        log(f"{len(beyond)} tokens of the tokenizer have no embedding, so texts must not have them: {shorten(beyond)}")


def _rendered(tokenizer: "PreTrainedTokenizerBase", stored: Path) -> list[int]:
    """Return the ids of a short conversation.

    Raises:
        ConfigurationError: The chat template cannot write it, or leaves out what the user says.
    """
    remedy = "mend it, or set chat_template to `plain`, to `text` or to the path of a Jinja file"
    user = {"role": "user", "content": "Hello, zebra"}
    try:
        text = render(tokenizer, [user], prompt=True)
    except ConfigurationError as error:
        try:
            text = render(tokenizer, [{"role": "system", "content": "Be brief."}, user], prompt=True)
        except ConfigurationError:
            what = f"{type(error.__cause__).__name__}: {error.__cause__}"
            raise ConfigurationError(f"the chat template of {stored} fails on a question ({what}): {remedy}") from error
    if "zebra" not in text.lower():
        raise ConfigurationError(f"the chat template of {stored} leaves out what the user says: {remedy}")
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_generation_prompt(tokenizer: "PreTrainedTokenizerBase", stored: Path) -> None:
    """Refuse a template that leaves it to the policy to write the heading of its turn: it would be in every text."""
    word = PROBE[0]["content"]
    try:
        prompt, bare = render(tokenizer, PROBE, prompt=True), render(tokenizer, PROBE)
    except ConfigurationError:
        return  # it wants a system message: each row is checked for one when it is loaded
    heading, found, _ = after_prompt(tokenizer, PROBE, word).partition(word)
    if prompt == bare and found and heading.strip():
        raise ConfigurationError(
            f"the chat template of {stored} writes {heading!r} before an answer, and not where add_generation_prompt "
            "asks for it, so the policy would have to: write it there too, or set chat_template to `plain`, to `text` "
            "or to the path of a Jinja file"
        )


def _check_saved(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", stored: Path, trust_remote_code: bool
) -> None:
    """Refuse a model whose configuration or tokenizer cannot be saved, or changes, as with each checkpoint."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import GenerationConfig

    with tempfile.TemporaryDirectory(prefix="rs-dpo-saved-") as name:
        try:
            model.config.save_pretrained(name)
            tokenizer.save_pretrained(name)
            if (stored / "generation_config.json").is_file():
                GenerationConfig.from_pretrained(stored).save_pretrained(name)
        except (ValueError, TypeError, AttributeError, NotImplementedError, StrictDataclassError) as error:
            raise ConfigurationError(
                f"the configuration of {stored} cannot be saved, so no model trained from it could be: {error}"
            ) from error
        again = load_tokenizer(Path(name), trust_remote_code)
        before, after = (each(MIXED_TEXT, add_special_tokens=False)["input_ids"] for each in (tokenizer, again))
        if before != after:
            raise ConfigurationError(
                f"the tokenizer of {stored} is another one once it is saved, so no model trained from it would have "
                "it: save it as tokenizer.json with a release of transformers that loads it as it was meant"
            )


def _check_first_token(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Refuse a tokenizer whose texts begin with CLS, where an encoder reads the reward, and conversations do not."""
    first = tokenizer(PROBE[0]["content"])["input_ids"][:1]
    if first == [tokenizer.cls_token_id] and encode_prompt(tokenizer, PROBE)[:1] != first:
        raise ConfigurationError(
            f"{folder} reads a reward at {tokenizer.cls_token!r}, which a conversation would not begin with: set "
            f"bos_token to {tokenizer.cls_token!r} in tokenizer_config.json, or chat_template to a file that writes it"
        )


def _check_reward_model(folder: Path, trust_remote_code: bool, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a ready reward model without one scalar head, or whose reward is not read at the end of the completion."""
    from transformers import AutoConfig

    if tokenizer.chat_template == PLAIN_TEMPLATE:
        _check_first_token(tokenizer, folder)
        log(
            f"{folder} reads conversations as the template `plain` writes them: if it learned others, set chat_template"
        )
    if register_oasst(folder):
        return  # one output, read at the last token whatever it is
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    names = config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in names) or config.num_labels != 1:
        raise ConfigurationError(
            f"{folder} is no reward model: it has {names} with {config.num_labels} labels instead of a "
            "...ForSequenceClassification with one; train one with reward_model.base_model"
        )
    pads = {tokenizer.pad_token_id, getattr(config, "pad_token_id", None)}
    if len(pads) > 1 or not pads.isdisjoint({None, *end_ids(tokenizer)}):
        raise ConfigurationError(
            f"{folder} pads with EOS or the token that ends a turn, with nothing, or differently in tokenizer and "
            f"model ({sorted(map(str, pads))}), so the reward would not be read at the end of the completion: set a "
            "pad_token of its own in tokenizer_config.json and its id as pad_token_id in config.json"
        )
