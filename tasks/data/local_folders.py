"""What a folder of data really holds: links followed, nothing missing, nothing for evaluation taken for training."""

import os
import re
from collections import Counter

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from tasks.config.errors import ConfigurationError

_SHARD = re.compile(r"(.*?)(\d+)([-_]of[-_])(\d+)(\..*)")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_HELD_OUT = frozenset(
    ("test", "testset", "val", "valid", "validation", "valset", "dev", "devset", "eval", "evalset", "evaluation")
)
_HELD_OUT |= {"held", "heldout", "holdout"}


def find(fs: AbstractFileSystem, root: str, above: tuple[str, ...] = ()) -> list[str]:
    """Return the paths of all files below a folder; links to folders are followed, but not in a circle."""
    found: list[str] = fs.find(root)
    if not isinstance(fs, LocalFileSystem):
        return found
    above = (*above, f"{os.path.realpath(root)}/")
    links = {path: f"{os.path.realpath(path)}/" for path in found if os.path.isdir(path)}  # files, says fsspec
    new = [path for path, place in links.items() if not any(one.startswith(place) for one in above)]
    return [path for path in found if path not in links] + [inner for path in new for inner in find(fs, path, above)]


def refuse_cache(fs: AbstractFileSystem, root: str) -> None:
    """Refuse a data set's folder in the hub's cache, which may hold several versions of it."""
    if fs.isdir(f"{root}/snapshots") and fs.isdir(f"{root}/blobs"):
        versions = sorted(path.rsplit("/", 1)[-1] for path in fs.ls(f"{root}/snapshots", detail=False))
        raise ConfigurationError(
            f"{root} is a folder of the hub's cache, with versions: name one of {root}/snapshots/, "
            f"{', '.join(versions) or 'of which there is none'}"
        )


def check_shards(root: str, names: list[str]) -> None:
    """Refuse a part of a set of files that are numbered 00000-of-00004 and so on: the rest has not been downloaded."""
    found = [(match[1], match[3] + match[4]) for name in names if (match := _SHARD.fullmatch(name))]
    for (stem, of), number in Counter(found).items():
        if number < (total := int(of[4:])):
            raise ConfigurationError(
                f"{root} has {number} of {total} files {stem}*{of}: download the others, or name one file"
            )


def refuse_held_out(root: str, names: list[str], base: str) -> None:
    """Refuse to train on files where a word in the name of some, not of all, says that they are held out."""
    words = {name: set(map(str.lower, _WORD.findall(name.removeprefix(base).partition(".")[0]))) for name in names}
    told = [name for name in names if words[name] & _HELD_OUT]
    if told and len(told) < len(names):
        raise ConfigurationError(
            f"{root} has no names that tell its splits, but {told[0]} seems to be for evaluation: rename the files "
            "(train.jsonl, test.jsonl), or name one of them"
        )
