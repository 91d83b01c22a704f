"""Models come into the store: from a folder, another store or the hub, checked, as safetensors and tokenizer only."""

import atexit
import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.lm.tokens import context_length, load_tokenizer
from tasks.lm.turns import end_ids
from tasks.models.checks import check_model
from tasks.models.form import (
    DOWNLOADED,
    generation_settings,
    mended_generation,
    small_files,
    stored_files,
    unread_template,
)
from tasks.models.templates import fixed_day
from tasks.models.weight_files import some, weight_files
from tasks.models.weights import Role, check_head, load_weights
from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.progress import log
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact, Content, files_digest
from tasks.store.copies import copy_folder, fetch
from tasks.store.drafts import Draft
from tasks.store.filesystem import as_meant, open_fs, persist
from tasks.store.folders import MANIFEST, read_manifest
from tasks.store.scratch import scratch_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def import_model(site: Site, source: ModelSource, role: Role) -> Artifact:
    """Check a model and bring it into the store.

    Args:
        site: Where it goes.
        source: Where it is.
        role: A ready `reward_model` needs a scalar head and a pad token of its own; a `policy` is a causal model; a
            `reward_base` is what a reward model can be trained from.

    Raises:
        ConfigurationError: The model is missing, or lacks safetensors, a tokenizer, EOS, some of its weights, or what
            its role needs.
    """
    folder = locate_model(source)
    files = model_files(folder, source, role)
    model = Artifact(kind="model", uri=str(folder), digest=files_digest(files))
    if source.chat_template is None and (name := unread_template(folder)) is not None:
        log(f"the chat template in {folder}/{name} is not read: to take it, write it into a file for chat_template")
    if (mended := mended_generation(folder)) is not None:
        given = generation_settings(folder)
        changed = sorted(name for name in {*given, *mended} if given.get(name) != mended.get(name))
        log(f"generation settings of {folder} that no trained model could be saved with are mended: {some(changed)}")
    # The base of a reward model is stored as any other base is.
    return store_model(site, model, source, "policy" if role == "reward_base" else role)


def import_reward_model(site: Site, config: RewardModelConfig, policy: Artifact) -> Artifact:
    """Bring in the ready reward model, or the model to train one from; `NOTHING` where that is the policy.

    Raises:
        ConfigurationError: A reward could not be read at EOS, because padding cannot be told from it.
    """
    if config.ready_model is not None:
        return import_model(site, config.ready_model, "reward_model")
    base = NOTHING if config.base_model is None else import_model(site, config.base_model, "reward_base")
    folder = model_folder(base or policy, weights=False)
    check_head(folder, trusts_remote_code(base or policy))
    tokenizer = load_tokenizer(folder, trusts_remote_code(base or policy))
    if tokenizer.pad_token_id in end_ids(tokenizer):
        raise ConfigurationError(
            f"the tokenizer of {folder} has no token to pad with beside EOS, or pads with the token that ends a turn, "
            "so no reward could be read there: set a pad_token of its own in tokenizer_config.json"
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
        return _download(as_meant(path))
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ConfigurationError(f"model folder {path} does not exist")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*DOWNLOADED, *(["*.py"] if source.trust_remote_code else [])]
    try:
        return Path(snapshot_download(path, revision=source.revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"model {path} is no folder, and the hub did not give it ({type(error).__name__}): check the name, the "
            "network, and HF_HUB_OFFLINE (1 uses only what was downloaded before)"
        ) from error


def model_files(folder: Path, source: ModelSource, role: Role) -> dict[str, Content]:
    """Return the files that make the stored model, with its chat template and pad token written in, once checked.

    Raises:
        ConfigurationError: Something that the role needs is missing, or is not what it should be.
    """
    files = stored_files(folder, source)
    check_model(files, folder, role, source.trust_remote_code)
    return files


def _preview_store_model(
    draft: Draft, model: Artifact, source: ModelSource, role: Role
) -> tuple[Artifact, dict[str, Any]]:
    """Lay out all but the weights in a temporary folder, so that a dry run has a tokenizer."""
    plan = PLAN.get()
    assert plan is not None
    folder = plan.folder / model.digest
    folder.mkdir(exist_ok=True)
    for name, content in stored_files(Path(model.uri), source).items():
        if not name.endswith(".safetensors"):
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    stats = {"trust_remote_code": source.trust_remote_code}
    return model.model_copy(update={"uri": str(folder), "stats": stats}), {}


@stage(version=1, preview=_preview_store_model, retries=2)
def store_model(out: Draft, model: Artifact, source: ModelSource, role: Role) -> Artifact:
    """Copy a model folder into the store."""
    files = stored_files(Path(model.uri), source)
    stats: dict[str, Any] = {"trust_remote_code": source.trust_remote_code}
    if (day := fixed_day(bytes(files["chat_template.jinja"]).decode())) is not None:
        stats["template_date"] = day
    return out.commit("model", files, model.digest, stats=stats)


def trusts_remote_code(model: Artifact) -> bool:
    """Tell whether code that comes with a model may run: as its source's configuration said."""
    return bool(model.stats.get("trust_remote_code", False))


def model_folder(model: Artifact, weights: bool = True) -> Path:
    """Return a local folder with a model's verified files, all but the weights where those are not wanted."""
    return fetch(model, weights) if "://" in model.uri else Path(model.uri)


def longest(model: Artifact, max_length: int) -> int:
    """Return the most tokens of a sequence to train a model on: `max_length`, or its context where that is shorter."""
    return min(max_length, context_length(model_folder(model, weights=False)))


def model_tokenizer(model: Artifact) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a stored model."""
    return load_tokenizer(model_folder(model, weights=False), trusts_remote_code(model))


def load_policy(folder: Path, dtype: "torch.dtype | str", trust_remote_code: bool) -> "PreTrainedModel":
    """Load a causal model from safetensors, every weight of it and no other."""
    return load_weights(folder, "policy", dtype, trust_remote_code)


def device() -> str:
    """Return the device to run models on: of several processes, each has its own."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def trained_files(folder: Path, with_code: bool) -> dict[str, Content]:
    """Return the files of a folder that a trainer saved, ready to commit."""
    names = small_files(folder, load_tokenizer(folder, with_code), with_code)
    return {name: folder / name for name in sorted({*names, *weight_files(folder)})}


@functools.cache
def _download(uri: str) -> Path:
    """Return the local folder of a model at a URI: where it lies, or a copy, by its manifest where it has one."""
    fs, path = open_fs(uri)
    if persist(lambda: bool(fs.exists(f"{path}/{MANIFEST}")), uri, "read"):
        manifest = read_manifest(uri)
        return fetch(Artifact(kind=manifest.kind, uri=uri, digest=manifest.digest))
    if not persist(lambda: bool(fs.isdir(path)), uri, "read"):
        raise ConfigurationError(f"model folder {uri} does not exist (looked for {path}): check the URI")
    if isinstance(fs, LocalFileSystem):
        return Path(path)
    scratch = contextlib.ExitStack()
    atexit.register(scratch.close)
    folder = scratch.enter_context(scratch_folder("model"))
    copy_folder(uri, folder)
    return folder
