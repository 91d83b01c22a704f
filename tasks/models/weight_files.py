"""The files that hold a model's weights: which they are, whether they are whole, and whether their values can be."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

WEIGHTS, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_LOOKED_AT = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|lm_head|embed_out|score|classifier(\.out_proj)?)"
    r"\.weight$"
)
"""The matrices at a model's two ends: a trained model has none that is all zero."""


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that hold a model's weights, each of them whole.

    Raises:
        ConfigurationError: There are none or not all, they are pickled, damaged or in doubt, or belong to an adapter.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    full = {name for name in names if name.endswith(".safetensors") and not name.startswith("adapter")}
    if ADAPTER in names and (not full or any(name.startswith("adapter_model") for name in names)):
        base = read_json(folder / ADAPTER).get("base_model_name_or_path", "its model")
        beside = ", with weights of a model beside it that it may be part of already" if full else ""
        raise ConfigurationError(
            f"{folder} holds an adapter of {base}{beside}: merge it first (PeftModel.merge_and_unload, then "
            "save_pretrained into a new folder), or delete the adapter_* files where that has been done"
        )
    if not full:
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        only = f", only {pickled[0]}, which is not read because a pickle can run code" if pickled else ""
        raise ConfigurationError(
            f"{folder} has no safetensors weights{only}: save them with model.save_pretrained(folder)"
        )
    chosen = _chosen(folder, full)
    for name in chosen:
        check_whole(folder / name)
    return chosen


def check_whole(path: Path) -> None:
    """Refuse a file that stands for another file, or that was not written to its end.

    Raises:
        ConfigurationError: Names the file.
    """
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        if file.read(23) == b"version https://git-lfs":
            raise ConfigurationError(f"{path} is a pointer of git-lfs, not the file itself: run `git lfs pull` there")
    if path.suffix == ".safetensors":
        try:
            safe_open(path, "np")  # `pt` would import torch
        except (SafetensorError, OSError) as error:
            raise ConfigurationError(f"{path} is damaged or cut off ({error}): copy or download it again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no such file.

    Raises:
        ConfigurationError: The file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON ({error}): copy or save the model again") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} holds no JSON object: copy or save the model again")
    return value


def headers(folder: Path) -> dict[str, "torch.Tensor"]:
    """Return the weights' names with tensors of their shapes that hold nothing.

    Raises:
        ConfigurationError: Two files hold a weight of one name.
    """
    import torch

    found: dict[str, torch.Tensor] = {}
    for path, name, file in _weights(folder):
        if name in found:
            raise ConfigurationError(f"{path} holds {name} a second time: save the model again")
        found[name] = torch.empty(file.get_slice(name).get_shape(), dtype=torch.bfloat16, device="meta")
    return found


def check_values(folder: Path) -> None:
    """Read a model's weights and refuse values that no training leaves behind.

    Raises:
        ConfigurationError: A weight is NaN or infinite, or the embeddings, the head or most matrices are all zero.
    """
    matrices = check_tensors(folder, ((name, file.get_tensor(name)) for _, name, file in _weights(folder)))
    empty = [name for name, is_zero in matrices.items() if is_zero]
    if any(_LOOKED_AT.search(name) for name in empty) or 2 * len(empty) > max(len(matrices), 1):
        raise ConfigurationError(
            f"{folder} has {len(empty)} matrices with nothing but zeros ({shorten(empty)}): copy or save the model "
            "again"
        )


def check_tied(folder: Path, tied: Mapping[str, str]) -> None:
    """Refuse two weights that the configuration says are one: transformers would use both, and vLLM the first.

    Args:
        folder: With the weights.
        tied: Name of a weight -> name of the weight that it is the same as.

    Raises:
        ConfigurationError: Names the two.
    """
    import torch
    from safetensors import safe_open

    held: dict[str, torch.Tensor] = {}
    wanted = {*tied, *tied.values()}
    for name in weight_files(folder):
        with safe_open(folder / name, "pt") as file:
            held |= {key: file.get_tensor(key) for key in file.keys() if key in wanted}  # noqa: SIM118
    for one, other in tied.items():
        if one in held and other in held and not torch.equal(held[one].float(), held[other].float()):
            raise ConfigurationError(
                f"{folder} has a {one} other than {other}, and its config.json says that they are one: set "
                f"tie_word_embeddings to false there, or save the model without {one}"
            )


def check_tensors(folder: Path, tensors: Iterable[tuple[str, "torch.Tensor"]]) -> dict[str, bool]:
    """Refuse values that are no weights; return, for each matrix, whether it is all zero.

    Raises:
        ConfigurationError: A value is NaN or infinite.
    """
    import torch

    is_zero = {}
    for name, tensor in tensors:
        if name.endswith(".weight") and not tensor.is_floating_point():
            raise ConfigurationError(
                f"{name} in {folder} holds whole numbers ({str(tensor.dtype).removeprefix('torch.')}), not weights: "
                "they are quantised; name the model in full precision"
            )
        if tensor.numel() == 0 or tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            continue
        low, high = (value.item() for value in torch.aminmax(tensor.detach()))
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise ConfigurationError(
                f"{folder} has weights that are NaN or infinite, first in {name}: the training that wrote them "
                "diverged, or the file is damaged; take an earlier checkpoint, or train with a lower learning_rate"
            )
        if tensor.dim() > 1:
            is_zero[name] = low == high == 0
    return is_zero


def _weights(folder: Path) -> Iterator[tuple[Path, str, Any]]:
    """Yield the file, the name and the open safetensors file of each weight."""
    from safetensors import safe_open

    for path in (folder / name for name in weight_files(folder)):
        with safe_open(path, "pt") as file:
            yield from ((path, name, file) for name in file.keys())  # noqa: SIM118


def shorten(names: list[str]) -> str:
    """Return the first three names, for a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _chosen(folder: Path, full: set[str]) -> list[str]:
    """Return the names of the files that transformers reads; refuse a folder where that is in doubt."""
    weight_map = read_json(folder / INDEX).get("weight_map", {})
    if not isinstance(weight_map, dict):
        raise ConfigurationError(f"weight_map in {folder / INDEX} is no JSON object: copy or save the model again")
    shards = sorted(set(weight_map.values()))
    if missing := [name for name in shards if name not in full]:
        raise ConfigurationError(
            f"{folder} lacks {missing[0]}, which {INDEX} names ({len(missing)} of {len(shards)} files are missing): "
            "copy or save the model again"
        )
    if WEIGHTS in full and shards not in ([], [WEIGHTS]):
        raise ConfigurationError(
            f"{folder} has {WEIGHTS} as well as {INDEX} with {shards[0]}: delete the older of the two"
        )
    if WEIGHTS not in full and not shards:
        raise ConfigurationError(
            f"{folder} has neither {WEIGHTS} nor a weight_map in {INDEX}, only {shorten(sorted(full))}: copy or save "
            "the model again"
        )
    return [WEIGHTS] if WEIGHTS in full else shards


def register_oasst(folder: Path) -> bool:
    """Tell whether a folder holds a reward model of OpenAssistant, and let transformers load it where it does.

    Raises:
        ConfigurationError: It reads a reward in a way that is not known.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "gpt_neox_reward_model":
        return False
    if (pooling := config.get("pooling", "last")) not in ("last", "mean"):
        raise ConfigurationError(f"pooling = {pooling!r} in {folder}/config.json must be last or mean")
    from tasks.models.oasst import register

    register()
    return True
