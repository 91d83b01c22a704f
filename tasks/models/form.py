"""The form in which a model is stored: its weights as they are, one tokenizer configuration, one chat template.

Files are copied, not written anew, so that a model keeps its digest from one release of transformers to the next. Where
two of them disagree, one is left out and the other says what the loaded tokenizer says.
"""

import fnmatch
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.lm.tokens import load_tokenizer
from tasks.lm.turns import PLAIN_TEMPLATE, TEXT_TEMPLATE, end_ids
from tasks.models.templates import pin_date
from tasks.models.weight_files import ADAPTER, INDEX, check_whole, read_json, register_oasst, weight_files
from tasks.models.weights import embedding_rows
from tasks.store.artifacts import Content, sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "tekken.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
CONFIGURATIONS = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")
SPECIAL_TOKENS = "special_tokens_map.json"
NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""Tokens by which that file would outvote the tokenizer's configuration; they are written into the latter alone."""
DOWNLOADED = (*CONFIGURATIONS, *TOKENIZER_FILES, SPECIAL_TOKENS, "*.safetensors", INDEX, ADAPTER)
UNREAD = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".zip", ".gz", ".tar")
"""Endings of files that a model folder may have and nothing reads, but for the safetensors that are its weights."""
PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Tokens that serve as padding where a tokenizer has none of its own, in order of preference."""


def stored_files(folder: Path, source: ModelSource) -> dict[str, Content]:
    """Return the files that make the stored model.

    Raises:
        ConfigurationError: Something is missing that every model has, or is damaged.
    """
    if not (folder / "config.json").is_file() and not (folder / ADAPTER).is_file():
        raise ConfigurationError(
            f"{folder} has no config.json: it is no model folder (merge an adapter into its model first)"
        )
    register_oasst(folder)
    weights = weight_files(folder)
    rows = embedding_rows(folder, source.trust_remote_code)
    for name in _matching(folder, [*CONFIGURATIONS, *TOKENIZER_FILES, SPECIAL_TOKENS]):
        check_whole(folder / name)
    tokenizer = load_tokenizer(folder, source.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"the tokenizer of {folder} has no EOS token: set eos_token in tokenizer_config.json")
    small = small_files(folder, tokenizer, source.trust_remote_code)
    files: dict[str, Content] = {name: folder / name for name in [*small, *weights]}
    template = pin_date(chat_template(tokenizer, source.chat_template), source.template_date)
    files["chat_template.jinja"] = template.encode()
    tokenizer.chat_template = template
    mended, ends = mended_generation(folder), _turn_ends(folder, tokenizer, rows)
    if mended is not None or ends is not None:
        settings = generation_settings(folder) if mended is None else mended
        files["generation_config.json"] = json.dumps(settings | (ends or {}), indent=2).encode()
    config, others = _special_tokens(folder)
    config["pad_token"] = _pad_token(tokenizer, config.get("pad_token"), rows)
    files["tokenizer_config.json"] = json.dumps(config, indent=2).encode()
    if others:
        files[SPECIAL_TOKENS] = json.dumps(others, indent=2).encode()
    return files


def folder_content(folder: Path, source: ModelSource) -> dict[str, str]:
    """Return what the form and the checks of a model read: each file of its folder with its hash.

    Of what is not read, weights in other forms among it, the name alone.
    """
    is_model = (folder / "config.json").is_file() or (folder / ADAPTER).is_file()
    weights = set(weight_files(folder)) if is_model else set()
    extra = folder.glob("additional_chat_templates/*")
    files = {str(path.relative_to(folder)): path for path in [*folder.iterdir(), *extra] if path.is_file()}
    found = {name: sha256_of(path) for name, path in files.items() if name in weights or not name.endswith(UNREAD)}
    choice = Path(os.path.expanduser(source.chat_template or ""))
    if source.chat_template and os.path.isfile(choice):
        found["chat_template"] = sha256_of(choice)
    return dict.fromkeys(files, "") | found


def small_files(folder: Path, tokenizer: "PreTrainedTokenizerBase", with_code: bool) -> list[str]:
    """Return the names of the files beside the weights that a model needs, all that its tokenizer reads among them."""
    own = [
        str(name) for name in tokenizer.vocab_files_names.values() if not str(name).endswith((".bin", ".pkl", ".pt"))
    ]
    patterns = [*CONFIGURATIONS, *TOKENIZER_FILES, *own, *(["*.py"] if with_code else [])]
    if (folder / INDEX).is_file():
        patterns.append(INDEX)
    return _matching(folder, patterns)


def _matching(folder: Path, patterns: list[str]) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def chat_template(tokenizer: "PreTrainedTokenizerBase", choice: str | None) -> str:
    """Return the chat template that a model is stored with.

    Args:
        tokenizer: The model's own.
        choice: As in `ModelSource`.

    Raises:
        ConfigurationError: The choice names nothing, or none of the tokenizer's templates is its default.
    """
    if choice is None:
        own = tokenizer.chat_template
        if isinstance(own, dict) and own and "default" not in own:
            raise ConfigurationError(
                f"the tokenizer has chat templates named {', '.join(sorted(own))} and none named default: write "
                "the one to use into a Jinja file and set chat_template to its path"
            )
        return str((own.get("default") if isinstance(own, dict) else own) or PLAIN_TEMPLATE)
    if choice in ("plain", "text"):
        return PLAIN_TEMPLATE if choice == "plain" else TEXT_TEMPLATE
    inline = "{{" in choice or "{%" in choice
    path = os.path.expanduser(choice)
    if inline or not os.path.isfile(path):  # isfile: False, and no error, for a name that is too long
        raise ConfigurationError(
            f"chat_template = {choice[:60]!r} must be `plain`, `text` or the path of a Jinja file"
            + (": write the template into one" if inline else "")
        )
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"chat_template = {choice!r} is no text in UTF-8 ({error}): save it in UTF-8"
        ) from error


def unread_template(folder: Path) -> str | None:
    """Return the name of a file whose chat template is not read, since another has its own; None: there is none."""
    path = folder / "chat_template.jinja"
    inner = read_json(folder / "tokenizer_config.json").get("chat_template")
    read = path.read_text(encoding="utf-8") if path.is_file() else inner
    beside = {
        "tokenizer_config.json": inner,
        "chat_template.json": read_json(folder / "chat_template.json").get("chat_template"),  # of processors
    }
    texts = {name: text.strip() for name, text in beside.items() if isinstance(text, str)}
    return next((name for name, text in texts.items() if text and text != str(read).strip()), None)


def generation_settings(folder: Path) -> dict[str, Any]:
    """Return how a model is set to generate: by a file of its own, or in its configuration, as older ones are."""
    from transformers import GenerationConfig

    if given := read_json(folder / "generation_config.json"):
        return given
    known, given = GenerationConfig().to_dict(), read_json(folder / "config.json")
    return {name: value for name, value in given.items() if name in known and value is not None}


def mended_generation(folder: Path) -> dict[str, Any] | None:
    """Return generation settings that can be saved with a trained model; None where the model's own can.

    Older releases saved sampling settings without `do_sample`, which it now takes to save them; whatever else cannot be
    saved is left out. Stages take only the end tokens from them.
    """
    given = generation_settings(folder)
    if _saves(given):
        return None
    if "do_sample" not in given and _saves(given | {"do_sample": True}):
        return given | {"do_sample": True}
    kept: dict[str, Any] = {}
    for _ in range(2):  # some settings need another
        for name, value in given.items():
            kept |= {name: value} if _saves(kept | {name: value}) else {}
    return kept


def stop_ids(folder: Path, tokenizer: "PreTrainedTokenizerBase", of_template: bool = True) -> set[int]:
    """Return the tokens that end a completion: EOS, what the model itself names, and the template's end of a turn."""
    named = generation_settings(folder).get("eos_token_id")
    ends = end_ids(tokenizer) if of_template else {tokenizer.eos_token_id}
    return {*ends, *filter(_is_id, named if isinstance(named, list) else [named])}


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


def _turn_ends(folder: Path, tokenizer: "PreTrainedTokenizerBase", rows: int) -> dict[str, Any] | None:
    """Return the end tokens to generate with; None where the end of a turn is among them, or is no token of the model.

    Whoever serves the stored model stops where it was trained to end a turn, as sampling here does.
    """
    known = stop_ids(folder, tokenizer, of_template=False)
    ends = {id_ for id_ in end_ids(tokenizer) - known if id_ < rows}
    return {"eos_token_id": sorted(known | ends)} if ends else None


def _saves(settings: dict[str, Any]) -> bool:
    """Tell whether a trained model with these generation settings could be saved."""
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_dict(dict(settings)).validate(strict=True)
    except (ValueError, TypeError):
        return False
    ends = settings.get("eos_token_id")
    return ends is None or all(map(_is_id, ends if isinstance(ends, list) else [ends]))


def _special_tokens(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tokenizer's configuration with the special tokens in it, and the rest of special_tokens_map.json."""
    config, apart = read_json(folder / "tokenizer_config.json"), read_json(folder / SPECIAL_TOKENS)
    config.pop("chat_template", None)
    if "added_tokens_decoder" in config:  # then the other file is not read
        return config, {}
    named = {name: _as_written(token) for name, token in apart.items() if name in NAMED}
    pad = config.get("pad_token")  # decided afterwards, as what was meant where the other file names EOS
    return config | named | ({"pad_token": pad} if pad else {}), {n: t for n, t in apart.items() if n not in NAMED}


def _as_written(token: Any) -> Any:
    """Return a special token as a tokenizer's configuration takes it."""
    return {**token, "special": True, "__type": "AddedToken"} if isinstance(token, dict) else token


def _pad_token(tokenizer: "PreTrainedTokenizerBase", configured: Any, rows: int) -> str:
    """Return a pad token that is not EOS, from the vocabulary that has embeddings; EOS where there is none."""
    vocabulary, taken = tokenizer.get_vocab(), {tokenizer.eos_token, tokenizer.bos_token}
    configured = configured.get("content") if isinstance(configured, dict) else configured
    for token in (tokenizer.pad_token, configured, *PAD_TOKENS):
        if token in vocabulary and token not in taken and vocabulary[token] < rows:
            return str(token)
    return str(tokenizer.eos_token)
