"""`make gpu` where there is no GPU: what it says, and that what it would run does run, on a CPU and in small."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from random_groups import VOCABULARY
from runs import ROOT, SUPPORT
from transformers import LlamaConfig

from tasks.config.training import DpoConfig
from tasks.store.artifacts import Artifact

pytestmark = pytest.mark.usefixtures("one_thread")

WITHOUT_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    given = WITHOUT_GPU | environment
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=given, capture_output=True, text=True, timeout=600)


def test_without_a_gpu_it_says_so_and_runs_nothing() -> None:
    done = run("benchmarks/gpu.py")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"make gpu needs an NVIDIA GPU, and torch {torch.__version__} sees none on this machine\n"


def test_a_benchmark_on_a_gpu_that_is_not_there_is_refused() -> None:
    done = run("benchmarks/scoring.py", "--device", "cuda")
    assert done.returncode == 2
    assert done.stderr.endswith(f"--device cuda: torch {torch.__version__} sees no CUDA device\n")


def test_a_python_that_lacks_packages_is_refused(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = benchmark("gpu")
    monkeypatch.setattr(gpu, "is_there", lambda name: name not in {"datasets", "s3fs"})
    assert gpu.why_not().startswith(f"make gpu needs datasets, s3fs, which {sys.executable} does not have")


def test_an_old_torch_is_refused(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu130")
    assert benchmark("gpu").why_not() == "make gpu needs torch 2.11 or later, and this is 2.9.1+cu130"


def test_what_is_missing_is_said_and_the_rest_runs(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, ran = benchmark("gpu"), []

    def note(command: list[str], env: dict[str, str], **_: Any) -> Any:
        ran.append((command[1:], env["PYTHONPATH"].split(os.pathsep)))
        return subprocess.CompletedProcess(command, returncode=int("scoring" in command[1]))

    monkeypatch.setattr(gpu, "is_there", lambda name: name in {"peft", "rclone"})
    monkeypatch.setattr(gpu.subprocess, "run", note)
    assert gpu.run(gpu.STEPS, None) == 1
    (tests, paths), (scoring, _) = ran  # no benchmark of DPO without TRL
    assert tests == ["-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", "tests/gpu"]
    assert scoring == ["benchmarks/scoring.py", "--device", "cuda"]
    assert paths[:2] == [str(ROOT), str(gpu.STAND_INS)]
    said = capsys.readouterr().out
    assert "without vllm are left out: sampling with vLLM; transformers samples\n" in said
    assert "without prefect are left out: flows; " in said
    assert said.endswith("failed: scoring\n")


def test_the_gpu_tests_say_why_they_do_not_run() -> None:
    done = run("-m", "pytest", "-m", "gpu", "-rs", "-q", "-p", "no:cacheprovider", "tests/gpu/test_gpu_memory.py")
    assert done.returncode == 0
    assert "sees no NVIDIA GPU" in done.stdout
    assert "4 skipped" in done.stdout


def test_stages_run_without_prefect(benchmark: Any, tmp_path: Path) -> None:
    """A stage's module, its body, and the line that it logs, with the stand-in before the real package on the path."""
    code = (
        "import sys, prefect; assert not prefect.__path__\n"
        "from pathlib import Path; from tasks.store.folders import Store; from tasks.store.artifacts import Artifact\n"
        "from pair_tables import *; from tasks.config.training import DpoConfig; from tasks.dpo import train_dpo\n"
        "store = Store(sys.argv[1]); policy = tiny_policy(store, Path(sys.argv[1]) / 'policy')\n"
        "tables = pairs_of(store, PAIRS), completions_of(store, [['a', 'b', 'c']]), prompts_of(store)\n"
        "config = DpoConfig(max_steps=1, lora=None)\n"
        "print(train_dpo.body(draft(store, 'aligned'), policy, policy, *tables, config).stats['ref_logps_computed'])\n"
    )
    paths = os.pathsep.join(map(str, (benchmark("gpu").STAND_INS, ROOT, SUPPORT)))
    done = run("-c", code, str(tmp_path), PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "5"
    assert "log-probabilities under the reference: 5 completions to compute" in done.stdout


@pytest.mark.slow
def test_scoring_in_small(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = run("benchmarks/scoring.py", "--prompts", "1", "--rounds", "1", "--results", str(results))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "16 of 1 prompts" in done.stdout
    rows = {row["name"]: row for row in json.loads(results.read_text())}
    sides = ("batches of 64", "one by one", "vLLM")
    assert rows.keys() == {f"scoring, against {side} (s)" for side in sides}
    assert all(row["ours"] > 0 and row["ratio"] > 0 for row in rows.values())


@pytest.mark.slow
def test_the_passes_of_dpo_in_small(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    small = ("--passes", "--prompts", "3", "--tokens", "24")
    done = run("benchmarks/dpo.py", *small, "--rounds", "1", "--results", str(results))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "TRL's padding_free: accepted and ignored: it pads" in done.stdout
    rows = {row["name"]: row for row in json.loads(results.read_text())}
    for other in ("TRL, padded", "TRL's loss without padding (sdpa)"):
        row = rows[f"DPO epoch, passes alone, against {other} (s)"]
        assert row["other"] / row["ours"] == pytest.approx(row["ratio"])


def test_pairs_without_padding_have_the_gradient_of_padded_ones(benchmark: Any, tmp_path: Path) -> None:
    """Else the side without padding, which is written here and not TRL's, would be compared with something else."""
    pairs, trl = benchmark("_pairs"), benchmark("_trl")
    from pairwise import THREE, PairwiseTrainer, gradient, pair_rows

    shape = LlamaConfig(vocab_size=VOCABULARY, pad_token_id=1, **TINY)
    model: Artifact = pairs.write_model(tmp_path / "model", shape)
    groups = [
        {"prompt": e.prompt, "completions": e.completions, "chosen": e.chosen, "rejected": e.rejected} for e in THREE
    ]
    for group in groups:
        group |= {side: torch.tensor(group[side]) for side in ("chosen", "rejected")}
        group["sequence_ids"] = [str(i) for i in range(len(group["completions"]))]
    world = pairs.World(model, groups, DpoConfig(lora=None), tmp_path, micro_batch=8)
    found = []
    for kind in (trl.FlatTrainer, PairwiseTrainer):
        trainer = trl.trl_trainer(world, kind)
        found.append(gradient(trainer, [trainer.data_collator(pair_rows(THREE, with_ref=False))]))
    (flat, loss), (padded, expected) = found
    assert float((flat - padded).norm() / padded.norm()) < 1e-5
    assert loss == pytest.approx(expected, rel=1e-6)


def test_figures_of_a_gpu_have_the_card_and_the_versions(benchmark: Any, tmp_path: Path) -> None:
    side_by_side, path = benchmark("_side_by_side"), tmp_path / "results-gpu.json"
    row = side_by_side.faster("scoring", (1.0, 3.0), 2.0)
    for title in ("Scoring", "Grouped DPO", "Scoring"):
        side_by_side.keep_section(title, {"model": "tiny"}, [row], path)
    kept = json.loads(path.read_text())
    assert kept.keys() == {"Scoring", "Grouped DPO"}
    section = kept["Scoring"]
    assert section["rows"] == [{"name": "scoring (s)", "ours": 1.0, "other": 3.0, "ratio": 3.0, "at_least": 2.0}]
    assert section["versions"]["torch"] == torch.__version__
    assert section.keys() >= {"card", "memory_gb", "date", "facts", "python"}
    assert section["versions"].keys() >= {"torch", "transformers", "trl"}
