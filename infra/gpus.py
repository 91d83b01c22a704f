"""The GPUs of this machine, and how workers share them."""

import os
import subprocess
from typing import NamedTuple

from tasks.config.errors import ConfigurationError


class Gpus(NamedTuple):
    """The GPUs of this machine, as its workers share them; where there is none, one worker computes on the CPU."""

    found: int
    per_worker: int

    @property
    def total(self) -> int:
        """Return the slots of the GPU limit."""
        return self.found or self.per_worker

    @property
    def workers(self) -> int:
        """Return how many workers compute stages."""
        return self.total // self.per_worker


def share_gpus(found: int) -> Gpus:
    """Return how workers share the GPUs that were found: RSDPO_GPUS_PER_WORKER each, by default 1.

    Raises:
        ConfigurationError: That is no number, or some would be left over.
    """
    value = os.environ.get("RSDPO_GPUS_PER_WORKER") or "1"
    if not value.isdecimal() or int(value) < 1 or found % int(value):
        raise ConfigurationError(
            f"RSDPO_GPUS_PER_WORKER = {value!r} must be a whole number that the {found} GPUs of this machine can be "
            "shared by, e.g. 1"
        )
    return Gpus(found, int(value))


def count_gpus() -> int:
    """Return how many GPUs nvidia-smi finds, 0 where there is none or no driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except FileNotFoundError:
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
