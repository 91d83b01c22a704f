"""Models come into the store: from a folder, another store or the hub, checked, as safetensors and tokenizer only."""

import atexit
import fnmatch
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.artifacts import NOTHING, Artifact, Content, files_digest
from tasks.config import RewardModelConfig, SftConfig
from tasks.copies import fetch
from tasks.drafts import Draft
from tasks.errors import ConfigurationError
from tasks.filesystem import open_fs
from tasks.plan import PLAN
from tasks.sections import ModelSource
from tasks.site import Site
from tasks.stage import stage
from tasks.storage import MANIFEST, read_manifest
from tasks.tokens import PLAIN_TEMPLATE, TEXT_TEMPLATE, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Role = Literal["policy", "reward_model"]
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)
PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Tokens that serve as padding where a tokenizer has none of its own, in order of preference."""


def import_model(site: Site, source: ModelSource, role: Role) -> Artifact:
    """Check a model and bring it into the store.

    Args:
        site: Where it goes.
        source: Where it is.
        role: A ready `reward_model` needs a scalar head and a pad token of its own; a `policy` is a causal model.

    Raises:
        ConfigurationError: The model is missing, or lacks safetensors, a tokenizer, EOS, or what its role needs.
    """
    folder = locate_model(source)
    files = model_files(folder, source, role)
    model = Artifact(kind="model", uri=str(folder), digest=files_digest(files))
    return store_model(site, model, source, role)


def import_reward_model(site: Site, config: RewardModelConfig, policy: Artifact) -> Artifact:
    """Bring in the ready reward model, or the model to train one from; `NOTHING` where that is the policy.

    Raises:
        ConfigurationError: A reward could not be read at EOS, because padding cannot be told from it.
    """
    if config.ready_model is not None:
        return import_model(site, config.ready_model, "reward_model")
    base = NOTHING if config.base_model is None else import_model(site, config.base_model, "policy")
    folder = model_folder(base or policy, weights=False)
    tokenizer = load_tokenizer(folder, trusts_remote_code(base or policy))
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise ConfigurationError(
            f"the tokenizer of {folder} has no token to pad with beside EOS, so no reward could be read at EOS: set a "
            "pad_token of its own in tokenizer_config.json"
        )
    return base


def import_policy(site: Site, config: SftConfig) -> Artifact:
    """Bring in the ready policy, or the base model to train one from."""
    source = config.ready_model or config.base_model
    assert source is not None  # the section demands one
    return import_model(site, source, "policy")


def locate_model(source: ModelSource) -> Path:
    """Return a local folder of a model, downloaded where it is on the hub or in an object store.

    Raises:
        ConfigurationError: There is no such folder, and the hub has no such model or cannot be reached.
    """
    path = source.path
    if Path(path).expanduser().is_dir():
        return Path(path).expanduser().resolve()
    if "://" in path:
        return _download(path)
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ConfigurationError(f"model folder {path} does not exist")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*MODEL_FILES, *(["*.py"] if source.trust_remote_code else [])]
    try:
        return Path(snapshot_download(path, revision=source.revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"model {path} is no folder, and the hub did not give it ({type(error).__name__}): check the name, the "
            "network, and HF_HUB_OFFLINE (1 uses only what was downloaded before)"
        ) from error


def model_files(folder: Path, source: ModelSource, role: Role) -> dict[str, Content]:
    """Return the files that make the stored model, with its chat template and pad token written in.

    Raises:
        ConfigurationError: Something that the role needs is missing.
    """
    names = _model_names(folder, source.trust_remote_code)
    if "config.json" not in names:
        raise ConfigurationError(
            f"{folder} has no config.json: it is no model folder (merge an adapter into its model first)"
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise ConfigurationError(f"{folder} has no safetensors weights: save them with model.save_pretrained(folder)")
    weights = _read_json(folder / "model.safetensors.index.json").get("weight_map", {})
    if missing := sorted(set(weights.values()) - set(names)):
        raise ConfigurationError(f"{folder} lacks {missing[0]}, which its index names: copy or save the model again")
    tokenizer = load_tokenizer(folder, source.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"the tokenizer of {folder} has no EOS token: set eos_token in tokenizer_config.json")
    if role == "reward_model":
        _check_reward_model(folder, source.trust_remote_code, tokenizer)
    files: dict[str, Content] = {name: folder / name for name in names}
    files["chat_template.jinja"] = _chat_template(tokenizer, source.chat_template).encode()
    config = _read_json(folder / "tokenizer_config.json")
    config.pop("chat_template", None)
    files["tokenizer_config.json"] = json.dumps({**config, "pad_token": _pad_token(tokenizer)}, indent=2).encode()
    return files


def _preview_store_model(
    draft: Draft, model: Artifact, source: ModelSource, role: Role
) -> tuple[Artifact, dict[str, Any]]:
    """Lay out all but the weights in a temporary folder, so that a dry run has a tokenizer."""
    plan = PLAN.get()
    assert plan is not None
    folder = plan.folder / model.digest
    folder.mkdir(exist_ok=True)
    for name, content in model_files(Path(model.uri), source, role).items():
        if not name.endswith(".safetensors"):
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    stats = {"trust_remote_code": source.trust_remote_code}
    return model.model_copy(update={"uri": str(folder), "stats": stats}), {}


@stage(version=1, preview=_preview_store_model, retries=2)
def store_model(out: Draft, model: Artifact, source: ModelSource, role: Role) -> Artifact:
    """Copy a model folder into the store."""
    files = model_files(Path(model.uri), source, role)
    return out.commit("model", files, model.digest, stats={"trust_remote_code": source.trust_remote_code})


def trusts_remote_code(model: Artifact) -> bool:
    """Tell whether code that comes with a model may run: as its source's configuration said."""
    return bool(model.stats.get("trust_remote_code", False))


def model_folder(model: Artifact, weights: bool = True) -> Path:
    """Return a local folder with a model's verified files, all but the weights where those are not wanted."""
    return fetch(model, weights) if "://" in model.uri else Path(model.uri)


def model_tokenizer(model: Artifact) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a stored model."""
    return load_tokenizer(model_folder(model, weights=False), trusts_remote_code(model))


def load_policy(folder: Path, dtype: "torch.dtype | str", trust_remote_code: bool) -> "PreTrainedModel":
    """Load a causal model from safetensors."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
    )


def device() -> str:
    """Return the device to run models on: of several processes, each has its own."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def trained_files(folder: Path, with_code: bool) -> dict[str, Content]:
    """Return the files of a folder that a trainer saved, ready to commit."""
    return {name: folder / name for name in _model_names(folder, with_code)}


def _model_names(folder: Path, with_code: bool = False) -> list[str]:
    patterns = [*MODEL_FILES, *(["*.py"] if with_code else [])]
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


@functools.cache
def _download(uri: str) -> Path:
    """Fetch a model folder from a file system: an artifact by its manifest, else file by file."""
    fs, path = open_fs(uri)
    if fs.exists(f"{path}/{MANIFEST}"):
        manifest = read_manifest(uri)
        return fetch(Artifact(kind=manifest.kind, uri=uri, digest=manifest.digest))
    if not fs.isdir(path):
        raise ConfigurationError(f"model folder {uri} does not exist")
    folder = Path(tempfile.mkdtemp(prefix="rs-dpo-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    fs.get(path.rstrip("/") + "/", f"{folder}/", recursive=True)
    return folder


def _check_reward_model(folder: Path, trust_remote_code: bool, tokenizer: "PreTrainedTokenizerBase") -> None:
    from transformers import AutoConfig

    if know_architecture(folder):
        return  # one output, read at the last token whatever it is
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    names = config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in names) or config.num_labels != 1:
        raise ConfigurationError(
            f"{folder} is no reward model: it has {names} with {config.num_labels} labels instead of a "
            "...ForSequenceClassification with one; train one with reward_model.base_model"
        )
    pads = {tokenizer.pad_token_id, getattr(config, "pad_token_id", None)}
    if len(pads) > 1 or not pads.isdisjoint({None, tokenizer.eos_token_id}):
        raise ConfigurationError(
            f"{folder} pads with EOS, with nothing, or differently in tokenizer and model ({sorted(map(str, pads))}), "
            "so the reward would not be read at the end of the completion: set a pad_token of its own in "
            "tokenizer_config.json and its id as pad_token_id in config.json"
        )


def know_architecture(folder: Path) -> bool:
    """Tell whether a folder holds a reward model of OpenAssistant, and let transformers load it where it does.

    Raises:
        ConfigurationError: It reads a reward in a way that is not known.
    """
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "gpt_neox_reward_model":
        return False
    if (pooling := config.get("pooling", "last")) not in ("last", "mean"):
        raise ConfigurationError(f"pooling = {pooling!r} in {folder}/config.json must be last or mean")
    from tasks.oasst import register

    register()
    return True


def _chat_template(tokenizer: "PreTrainedTokenizerBase", choice: str | None) -> str:
    if choice is None:
        own = tokenizer.chat_template
        return str((own.get("default") if isinstance(own, dict) else own) or PLAIN_TEMPLATE)
    if choice in ("plain", "text"):
        return PLAIN_TEMPLATE if choice == "plain" else TEXT_TEMPLATE
    if not Path(choice).is_file():
        raise ConfigurationError(f"chat_template = {choice!r} must be `plain`, `text` or the path of a Jinja file")
    return Path(choice).read_text()


def _pad_token(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a pad token that is not EOS, from the tokenizer's own vocabulary; EOS where there is none."""
    vocabulary, taken = tokenizer.get_vocab(), {tokenizer.eos_token, tokenizer.bos_token}
    candidates = [tokenizer.pad_token, *PAD_TOKENS]
    return str(next((token for token in candidates if token in vocabulary and token not in taken), tokenizer.eos_token))


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}
