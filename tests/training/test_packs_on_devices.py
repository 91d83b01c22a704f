"""A pack on its way to a GPU: pinned by torch's loader, moved by accelerate; nothing of it stays behind."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.utils import send_to_device
from pairwise import THREE, arguments, grouped
from random_groups import neox
from torch.utils.data._utils.pin_memory import pin_memory

from tasks.lm.layout import Batch
from tasks.training.packs import Limits

pytestmark = pytest.mark.usefixtures("one_thread")
UNRELATED = [example._replace(unrelated=0) for example in THREE]


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors within something."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)


@pytest.fixture(params=[True, False], ids=["shared", "not shared"])
def pack(request: pytest.FixtureRequest, tmp_path: Any) -> dict[str, Any]:
    limits = Limits(10**6, 10**9, 1, request.param)
    trainer, packs = grouped(neox(), UNRELATED, limits, arguments(tmp_path))
    collator = trainer.data_collator
    collator.packs = [own._replace(per_completion=1.0) for own in collator.packs]
    (number,) = range(len(packs))
    return collator([{"pack": number}])


def test_every_tensor_is_moved(pack: dict[str, Any]) -> None:
    """To the device without memory, which holds none of what is left behind."""
    moved = send_to_device(pack, torch.device("meta"))
    before, after = list(tensors(pack)), list(tensors(moved))
    assert len(before) > 15
    assert [each.shape for each in after] == [each.shape for each in before]
    assert {each.device.type for each in after} == {"meta"}
    assert isinstance(moved["batch"], Batch)
    assert moved["pack"] == 0


def test_every_tensor_is_pinned(pack: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the loader does on a machine with a GPU; here a pinned tensor is one that was asked to be."""
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: asked.append(id(self)) or self)
    pinned = pin_memory(pack)
    assert sorted(asked) == sorted(map(id, tensors(pack)))
    assert isinstance(pinned["batch"], Batch)
    assert pinned["weight"] == pack["weight"]


def test_a_batch_is_moved_as_a_whole(pack: dict[str, Any]) -> None:
    moved = pack["batch"].to(torch.device("meta"))
    assert {each.device.type for each in tensors(moved)} == {"meta"}
