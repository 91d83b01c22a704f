"""What it cost to compute an artifact: time, memory, device. It informs; nothing is decided by it."""

import contextlib
import resource
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost:
    """Measures from when it is made."""

    def __init__(self) -> None:
        """Begin; the peak of this process's memory so far is forgotten (Linux)."""
        self.start, self.children = time.monotonic(), _peak_of_children()
        self.phases: dict[str, tuple[int, float]] = {}
        self.child: dict[str, Any] = {}
        """What a child used of a GPU."""
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()

    def add_phase(self, name: str, units: int, seconds: float) -> None:
        """Note that so many units of some work took so long; phases of one name are added up."""
        before = self.phases.get(name, (0, 0.0))
        self.phases[name] = (before[0] + units, before[1] + seconds)

    def note_child(self, used: dict[str, Any]) -> None:
        """Note what a child used of a GPU, as `gpu_used` says it there; of several, the one with the highest peak."""
        if used["peak_gpu_memory"] > self.child.get("peak_gpu_memory", -1):
            self.child = used

    def measure(self) -> dict[str, Any]:
        """Return what it has cost so far.

        Returns:
            `seconds`; `phases`: the work that its progress was shown of, each with `units` and `seconds`;
            `peak_memory`: of this process, or of a child that has ended since and was larger than any before, in bytes;
            `device`; and on a GPU `peak_gpu_memory` of this process, or of a child that said so, in bytes.
        """
        children, on_gpu = _peak_of_children(), [used for used in (gpu_used(), self.child) if used]
        return {
            "seconds": round(time.monotonic() - self.start, 3),
            "phases": {name: {"units": u, "seconds": round(s, 3)} for name, (u, s) in self.phases.items()},
            "peak_memory": max(_peak_memory(), children if children > self.children else 0),
            "device": "cpu",
            **max(on_gpu, key=lambda used: used["peak_gpu_memory"], default={}),
        }


COST: ContextVar[Cost | None] = ContextVar("cost", default=None)
"""What measures the output that is computed here now."""


def gpu_used() -> dict[str, Any]:
    """Return the `device` of this process and its `peak_gpu_memory` in bytes; nothing where it has used no GPU."""
    cuda = _cuda()
    return {} if cuda is None else {"device": cuda.get_device_name(), "peak_gpu_memory": cuda.max_memory_allocated()}


def _peak_memory() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _peak_of_children() -> int:
    """Return the peak memory of the largest child that has ended: the kernel remembers no other."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10


def _cuda() -> Any:
    """Return `torch.cuda` where this process has used a GPU: nothing is imported or started to look."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
