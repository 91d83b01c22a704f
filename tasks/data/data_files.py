"""Choose the data files of a folder as the `datasets` library would: by its card, or by the names of files and folders.

    data/train-00000-of-00002.parquet, data/test_sft-...   splits as they are named
    train.jsonl, dev.jsonl, eval/part.parquet              train, validation, test
    README.md with `configs:`                              splits, and configurations to choose by `name`
    helpful-base/train.jsonl.gz                            one folder of several: `data_dir` or `name`
    dataset_dict.json, state.json                          what `save_to_disk` has written
    anything else                                          all files, as split `train`

What describes data is no data: cards, dataset_infos.json and the like, and JSON that is one object over several lines.
"""

import json
import posixpath
import re
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import yaml
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.local_folders import check_shards, find, refuse_cache, refuse_held_out
from tasks.data.readers import ENDINGS, is_description, reader

_HIDDEN = re.compile(r"(\A|/)[._]")
_DESCRIPTIONS = {
    "dataset_infos.json",
    "dataset_info.json",
    "dataset_dict.json",
    "state.json",
    "croissant.json",
    "config.json",
    "metadata.json",
}
_ALL = "train"
"""The split of files that no name tells apart."""

Splits = dict[str, list[str]]


class Chosen(NamedTuple):
    """The paths of the files to read, in the order of their names, and what else is there, in words."""

    paths: list[str]
    unread: list[str]


def choose_files(fs: AbstractFileSystem, root: str, source: DataSource) -> Chosen:
    """Return the files of a folder that hold a source's configuration and split.

    Raises:
        ConfigurationError: There is no such configuration, folder or split, or no data at all, or a shard is missing.
    """
    root = root.rstrip("/")
    if source.data_dir is not None:
        root = _inside(fs, root, "data_dir", source.data_dir)
    if (saved := _saved_files(fs, root, source)) is not None:
        return Chosen(saved, [])
    refuse_cache(fs, root)
    names = sorted(name for path in find(fs, root) if not _HIDDEN.search(name := path.removeprefix(root + "/")))
    data = [name for name in names if _is_data(fs, root, name)]
    if not data:
        for table in [name for name in names if name.lower().endswith((".csv", ".tsv"))]:
            reader(f"{root}/{table}")  # says how to convert it
        raise ConfigurationError(
            f"{root} holds no data files: looked for {', '.join(ENDINGS)} and saved datasets, "
            f"found {', '.join(names[:10]) or 'nothing'}"
        )
    splits = _splits(fs, root, source, names, data)
    chosen = _pick_split(root, splits, source.split)
    for name in chosen:
        reader(f"{root}/{name}")  # the card may list what is of no known kind
    check_shards(root, chosen)
    if isinstance(fs, LocalFileSystem) and (lost := [name for name in chosen if not fs.exists(f"{root}/{name}")]):
        raise ConfigurationError(f"{root}/{lost[0]} is a link to a file that is not there: download or copy it again")
    others = {name: split for split, members in splits.items() for name in members}
    unread = [f"{name} (split {others[name]})" if name in others else name for name in names if name not in chosen]
    return Chosen([f"{root}/{name}" for name in chosen], unread)


def _inside(fs: AbstractFileSystem, root: str, field: str, folder: str) -> str:
    """Return the path of a folder within the data's folder."""
    path = f"{root}/{folder.strip('/')}"
    if not fs.isdir(path):
        folders = sorted(one.rsplit("/", 1)[-1] for one in fs.ls(root, detail=False) if fs.isdir(one))
        remedy = f"set it to one of {', '.join(folders)}" if folders else "leave it out"
        raise ConfigurationError(f"{field} = {folder!r}: there is no such folder in {root}: {remedy}")
    return path


def _saved_files(fs: AbstractFileSystem, root: str, source: DataSource) -> list[str] | None:
    """Return the files that `save_to_disk` has written for a split; None for any other folder."""
    is_split, splits = False, [_ALL]
    if fs.exists(f"{root}/dataset_dict.json"):
        splits = _read_json(fs, f"{root}/dataset_dict.json", lambda info: list(info["splits"]))
        root, is_split = f"{root}/{_pick_split(root, {name: [name] for name in splits}, source.split)[0]}", True
    if not (fs.exists(f"{root}/state.json") and fs.exists(f"{root}/dataset_info.json")):
        return None
    if source.name is not None:
        raise ConfigurationError(f"name = {source.name!r} chooses nothing in {root}, a saved dataset: leave it out")
    names = _read_json(fs, f"{root}/state.json", lambda state: [file["filename"] for file in state["_data_files"]])
    if not is_split:
        own = _read_json(fs, f"{root}/state.json", lambda state: [str(state.get("_split") or _ALL)])
        if source.split not in (_ALL, *own):
            raise ConfigurationError(f"{root} has no split {source.split!r}, it was saved as a whole: leave split out")
    if strange := [name for name in names if "/" in name]:
        raise ConfigurationError(
            f"{root}/state.json names {strange[0]!r}, which is not in its folder: save the data again"
        )
    return [f"{root}/{name}" for name in sorted(names)]


def _read_json(fs: AbstractFileSystem, path: str, pick: Callable[[Any], list[str]]) -> list[str]:
    """Return what to pick from a saved dataset's description."""
    try:
        return pick(json.loads(fs.cat_file(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} does not describe a saved dataset: save the dataset again") from error


def _is_data(fs: AbstractFileSystem, root: str, name: str) -> bool:
    """Return whether a file holds data, by its name and, for JSON, its beginning."""
    if not name.lower().endswith(ENDINGS) or name.rsplit("/", 1)[-1].lower() in _DESCRIPTIONS:
        return False
    return not (name.lower().endswith(".json") and is_description(fs, f"{root}/{name}"))


def _splits(fs: AbstractFileSystem, root: str, source: DataSource, names: list[str], data: list[str]) -> Splits:
    """Return the data files of each split, by the card or else by their names."""
    has_card = "README.md" in names and source.data_dir is None
    configurations, default = _card(fs, root) if has_card else ({}, None)
    if not configurations:
        if source.name is None:
            return _named_splits(root, data)
        folder = _inside(fs, root, "name", source.name).removeprefix(root + "/")
        return _named_splits(root, [name for name in data if name.startswith(f"{folder}/")], f"{folder}/")
    name = source.name or default
    if name not in configurations:
        found = f"has no configuration {name!r}" if name else "has several configurations"
        raise ConfigurationError(f"{root} {found}: set name to one of {', '.join(configurations)}")
    return _listed_splits(root, configurations[name], names, data)


def _card(fs: AbstractFileSystem, root: str) -> tuple[dict[str, Any], str | None]:
    """Return the configurations that a folder's README.md lists at its head, and the name of the default one."""
    from datasets.utils.metadata import MetadataConfigs  # takes a second
    from huggingface_hub import DatasetCard

    text = fs.cat_file(f"{root}/README.md").decode("utf-8-sig", errors="replace")
    if not text.lstrip().startswith("---"):
        return {}, None
    try:
        configurations = MetadataConfigs.from_dataset_card_data(DatasetCard(text).data)
        return configurations, configurations.get_default_config_name()
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"{root}/README.md: the YAML at its head cannot be read ({error}): mend it, or delete the file"
        ) from error


def _named_splits(root: str, data: list[str], base: str = "") -> Splits:
    """Return the data files of each split as their names and folders tell; all as one split where they do not."""
    from datasets.data_files import _get_data_files_patterns  # takes a second

    def resolve(pattern: str) -> list[str]:
        return _matching(pattern, [name.removeprefix(base) for name in data])

    try:
        patterns = _get_data_files_patterns(resolve)
    except ValueError as error:
        raise ConfigurationError(f"{root}: {error} Name the files themselves, or rename them") from error
    found = {str(split): [base + name for one in some for name in resolve(one)] for split, some in patterns.items()}
    if list(found) == [_ALL] and len(data) > 1:
        refuse_held_out(root, found[_ALL], base)
    return {split: sorted(set(names)) for split, names in found.items()}


def _listed_splits(root: str, configuration: dict[str, Any], names: list[str], data: list[str]) -> Splits:
    """Return the files of each split of a card's configuration; none for a split with a file missing."""
    from datasets.data_files import sanitize_patterns

    base = posixpath.normpath(configuration.get("data_dir") or ".")
    if configuration.get("data_files") is None:
        base = "" if base == "." else f"{base}/"
        return _named_splits(root, [name for name in data if name.startswith(base)], base)
    patterns = sanitize_patterns(configuration["data_files"])
    if distant := [one for some in patterns.values() for one in some if "://" in one]:
        raise ConfigurationError(f"{root}/README.md names {distant[0]}, which is not in its folder: download it first")
    paths = {split: [posixpath.normpath(posixpath.join(base, one)) for one in some] for split, some in patterns.items()}
    try:
        found = {
            split: [_matching(one, data) or _matching(one, names) for one in some] for split, some in paths.items()
        }
        return {split: sorted({*chain(*some)}) if all(some) else [] for split, some in found.items()}
    except ValueError as error:
        raise ConfigurationError(f"{root}/README.md, data_files: {error}") from error


def _matching(pattern: str, names: list[str]) -> list[str]:
    """Return the names that a pattern fits; upper and lower case are the same."""
    fits = re.compile(glob_translate(pattern), re.IGNORECASE)
    return [name for name in names if fits.match(name)]


def _pick_split(root: str, splits: Splits, split: str) -> list[str]:
    """Return the files of a split, which may be called by a name that means the same, such as dev for validation."""
    from datasets.data_files import SPLIT_KEYWORDS

    alias = next((str(name) for name, words in SPLIT_KEYWORDS.items() if split in words), split)
    chosen = split if split in splits else alias
    there = [name for name, files in splits.items() if files]
    if chosen in splits and chosen not in there:
        raise ConfigurationError(
            f"{root} has none, or not all, of the files that its README.md lists for split {split!r}: download "
            f"them, or set split to one of {', '.join(there) or '(none)'}"
        )
    if chosen not in there:
        raise ConfigurationError(f"{root} has no split {split!r}: set split to one of {', '.join(there)}")
    return splits[chosen]
