"""What `make gpu` runs: the tests that need an NVIDIA GPU, then DPO and scoring on a billion random weights.

It runs with the Python that it is given, which needs torch 2.11 or later and what stands below in NEEDED. Of vLLM,
Prefect, TRL, peft and rclone it says what is left out where one is missing. Figures go to benchmarks/results-gpu.json,
with the card and the versions. Without a GPU it ends at once.

    python benchmarks/gpu.py [--only tests dpo scoring] [--results FILE]
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAND_INS = ROOT / "tests/support/stand_ins"
LEAST_TORCH = (2, 11)
NEEDED = (
    *("torch", "transformers", "accelerate", "safetensors", "tokenizers", "numpy", "scipy", "pyarrow", "datasets"),
    *("pydantic", "yaml", "jinja2", "fsspec", "s3fs", "aiobotocore", "botocore", "httpx", "tqdm", "rich", "pytest"),
    "hypothesis",
)
"""Without any of these nothing here can be imported."""
LEFT_OUT = {
    "trl": "all trainings, log-probabilities, and the benchmark of DPO",
    "peft": "trainings with LoRA",
    "vllm": "sampling with vLLM; transformers samples",
    "prefect": "flows; the bodies of the stages run all the same",
    "rclone": "stores in S3",
}
"""Package or program -> what is left out without it."""
STEPS = ("tests", "dpo", "scoring")


def is_there(name: str) -> bool:
    """Tell whether a package is installed, or a program beside this Python or on the path."""
    if name == "rclone":
        return (Path(sys.executable).parent / name).exists() or shutil.which(name) is not None
    return importlib.util.find_spec(name) is not None


def why_not() -> str | None:
    """Return why nothing can run, in a sentence; None: it can."""
    if missing := [name for name in NEEDED if not is_there(name)]:
        return f"make gpu needs {', '.join(missing)}, which {sys.executable} does not have: name another PYTHON"
    import torch

    if tuple(map(int, torch.__version__.split(".")[:2])) < LEAST_TORCH:
        return f"make gpu needs torch {'.'.join(map(str, LEAST_TORCH))} or later, and this is {torch.__version__}"
    if not torch.cuda.is_available():
        return f"make gpu needs an NVIDIA GPU, and torch {torch.__version__} sees none on this machine"
    return None


def environment(missing: Iterable[str]) -> dict[str, str]:
    """Return the environment of what is run: with this checkout, and a stand-in for Prefect where it is missing."""
    paths = [str(ROOT), *([str(STAND_INS)] if "prefect" in missing else []), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def command_of(step: str, results: Path | None) -> list[str]:
    """Return the command of a step."""
    if step == "tests":
        return [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", "tests/gpu"]
    own = ["--results", str(results)] if results else []
    return [sys.executable, f"benchmarks/{step}.py", "--device", "cuda", *own]


def run(steps: Iterable[str], results: Path | None) -> int:
    """Run steps, each to its end whatever came of the one before; return the number that failed."""
    missing = [name for name in LEFT_OUT if not is_there(name)]
    for name in missing:
        print(f"without {name} are left out: {LEFT_OUT[name]}", flush=True)
    failed = []
    for step in steps:
        if step == "dpo" and "trl" in missing:
            continue
        command = command_of(step, results)
        print(f"$ {' '.join(command)}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment(missing)).returncode:
            failed.append(step)
    print(f"failed: {', '.join(failed)}" if failed else "all went well", flush=True)
    return len(failed)


def main() -> int:
    """Check, then run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="steps; all of them otherwise")
    parser.add_argument("--results", type=Path, help="file that the figures are put into")
    chosen = parser.parse_args()
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        return 1
    return run(chosen.only, chosen.results and chosen.results.resolve())


if __name__ == "__main__":
    sys.exit(main())
