"""Where a model comes from: a local folder, an object store or the hub; what is elsewhere is fetched."""

import atexit
import contextlib
import functools
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.models.form import DOWNLOADED
from tasks.models.gguf import SUFFIX, unpack
from tasks.models.licence import CARD, LICENCES
from tasks.store.artifacts import MANIFEST, Artifact
from tasks.store.copies import copy_folder, fetch
from tasks.store.filesystem import as_meant, open_fs, persist
from tasks.store.manifests import read_manifest
from tasks.store.scratch import scratch_folder


def locate_model(source: ModelSource) -> Path:
    """Return a local folder of a model, downloaded where it is on the hub or in an object store.

    Raises:
        ConfigurationError: There is no such folder, and the hub has no such model or cannot be reached.
    """
    path = source.path
    if path.endswith(SUFFIX) and "://" not in path:
        return unpack(Path(path).expanduser().resolve())
    folder = _locate_folder(source)
    return folder if source.gguf_file is None else unpack(folder / source.gguf_file)


def _locate_folder(source: ModelSource) -> Path:
    path = source.path
    if Path(path).expanduser().is_dir():
        return Path(path).expanduser().resolve()
    if "://" in path:
        return _download(as_meant(path))
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ConfigurationError(
            f"model folder {path} does not exist: check the path, or name a hub model as owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    code = ["*.py"] if source.trust_remote_code else []
    patterns = [*(DOWNLOADED if source.gguf_file is None else [source.gguf_file]), CARD, *LICENCES, *code]
    try:
        return Path(snapshot_download(path, revision=source.revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"model {path} is no folder, and the hub did not give it ({type(error).__name__}): check the name, the "
            "network, and HF_HUB_OFFLINE (1 uses only what was downloaded before)"
        ) from error


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
