"""What rounding the weights of a trained model leaves of the training.

An update smaller than half a unit in the last place of a weight is lost where the weight is stored, or loaded, in a
type with few digits. With W the weights before the training, V the weights after it, both in float32, and q the
rounding to a type:

    update = V - W
    lost = update - (q(V) - q(W))
    kept = 1 - |lost|^2 / |update|^2
    moved = share of the entries with update != 0 that have q(V) != q(W)

over all weights that the model had before. `kept` is 1 where nothing is lost, and 0 where rounding does to the weights
as much as the training did, or more.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tasks.pipeline.progress import log, warn
from tasks.store.artifacts import Artifact

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
LEAST_KEPT = 0.99
"""Share of the update that the stored type must keep, where the configuration names none."""
LEAST_KEPT_IN_SILENCE = 0.9
"""Share of the update below which a type is warned of."""


def measure_update(
    before: Iterable[tuple[str, "torch.Tensor"]], after: Mapping[str, "torch.Tensor"]
) -> dict[str, dict[str, float]]:
    """Return `kept` and `moved`, each type -> the share of the training's update, as the module's equations say.

    Args:
        before: Name and W of each weight, any shape and type.
        after: Name -> V, of W's shape.
    """
    import torch

    squares, entries = 0.0, 0
    lost, moved = dict.fromkeys(DTYPES, 0.0), dict.fromkeys(DTYPES, 0)
    for name, weight in before:
        trained = after[name].detach().float()
        start = weight.detach().to(trained.device).float()
        update = trained - start
        squares += float(update.square().sum(dtype=torch.float64))
        entries += int(update.count_nonzero())
        for dtype in DTYPES:
            type_ = getattr(torch, dtype)
            change = trained.to(type_).float() - start.to(type_).float()
            lost[dtype] += float((update - change).square().sum(dtype=torch.float64))
            moved[dtype] += int(change[update != 0].count_nonzero())
    return {
        "kept": {dtype: round(max(0.0, 1 - lost[dtype] / squares), 6) if squares else 1.0 for dtype in DTYPES},
        "moved": {dtype: round(moved[dtype] / entries, 6) if entries else 1.0 for dtype in DTYPES},
    }


def stored_type(wanted: str | None, computed_in: str, kept: Mapping[str, float]) -> str:
    """Return the type to store a model in: the wanted one, else the training's, or float32 where that loses too much.

    Args:
        wanted: The configuration's choice; None leaves it to the rule.
        computed_in: Type that the training computed in.
        kept: Type -> share of the update that it keeps.
    """
    if wanted is not None:
        return wanted
    return computed_in if kept[computed_in] >= LEAST_KEPT else "float32"


def report_update(update: Mapping[str, Any]) -> None:
    """Say where the type that a model is stored in, or the type that it was trained in, loses much of the training.

    Args:
        update: `stored` and `computed_in`, two types, and what `measure_update` returned.
    """
    stored, computed_in, kept, moved = (update[name] for name in ("stored", "computed_in", "kept", "moved"))
    if kept[stored] < LEAST_KEPT_IN_SILENCE:
        warn(
            f"the stored {stored} weights keep {kept[stored]:.0%} of the training's update, and "
            f"{moved[stored]:.0%} of the weights that it changed move at all: set stored_dtype to float32"
        )
    elif stored != computed_in and kept[computed_in] < LEAST_KEPT:
        log(
            f"the model is stored in {stored}: {computed_in} keeps {kept[computed_in]:.0%} of the training's update, "
            "and so does whatever loads the model in it"
        )


def warn_of_loss(model: Artifact, dtype: str, setting: str) -> None:
    """Warn where a model that was trained here is loaded in a type that loses much of its training.

    Args:
        model: A model; nothing is said of a model that was not trained here.
        dtype: Type that its weights are loaded in.
        setting: The setting that decides the type, for the message.
    """
    kept = model.stats.get("update", {}).get("kept", {}).get(dtype, 1.0)
    if kept < LEAST_KEPT_IN_SILENCE:
        warn(
            f"{setting} = {dtype} keeps {kept:.0%} of the update that the model's training made: set it to "
            "float32, or serve the model's adapter/, where it has one, over the model that it was trained from"
        )
