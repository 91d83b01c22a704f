"""What it cost to compute an artifact: time, memory, device. It informs; nothing is decided by it."""

import contextlib
import resource
import sys
import time
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost:
    """Measures from when it is made."""

    def __init__(self) -> None:
        """Begin; the peak of this process's memory so far is forgotten (Linux)."""
        self.start, self.children = time.monotonic(), _peak_of_children()
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()

    def measure(self) -> dict[str, Any]:
        """Return what it has cost so far.

        Returns:
            `seconds`; `peak_memory`: of this process, or of a child that has ended since and was larger than any
            before, in bytes; `device`; and on a GPU `peak_gpu_memory` of this process, in bytes.
        """
        cuda, children = _cuda(), _peak_of_children()
        found = {
            "seconds": round(time.monotonic() - self.start, 3),
            "peak_memory": max(_peak_memory(), children if children > self.children else 0),
            "device": "cpu" if cuda is None else cuda.get_device_name(),
        }
        return found if cuda is None else found | {"peak_gpu_memory": cuda.max_memory_allocated()}


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
