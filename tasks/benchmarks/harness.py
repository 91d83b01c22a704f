"""Tasks of lm-eval on a policy: run as a process of an environment of its own, whose packages would move ours."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.benchmarks.figures import Figure
from tasks.config.benchmarks import HarnessConfig
from tasks.config.errors import ConfigurationError
from tasks.models.loading import model_folder, trusts_remote_code
from tasks.pipeline.progress import log
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import Draft, canonical_json, provenance_of
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes
from tasks.store.scratch import scratch_folder

NAME = "lm_eval"
VERSION = "from importlib.metadata import version; print(version('lm_eval'))"
RESULTS = "results.json"
NORMAL_95 = 1.959964
"""Standard errors from a mean to the ends of its 95% interval."""


def harness_version(config: HarnessConfig) -> str:
    """Return the version of lm-eval that would run.

    Raises:
        ConfigurationError: There is none, or no folder of the tasks of one's own.
    """
    if config.include_path is not None and not Path(config.include_path).is_dir():
        raise ConfigurationError(f"lm_eval.include_path = {config.include_path!r} is no folder: check the path")
    try:
        done = subprocess.run([config.python, "-c", VERSION], capture_output=True, text=True)
    except OSError as error:
        raise ConfigurationError(
            f"lm_eval.python = {config.python!r} does not run ({error}): `make lm-eval` makes .venv-lm-eval"
        ) from error
    if done.returncode:
        raise ConfigurationError(f"lm_eval.python = {config.python!r} has no lm-eval: run `make lm-eval`")
    return done.stdout.strip()


def tasks_in_question(config: HarnessConfig) -> dict[str, str | None]:
    """Return what decides the results beside the settings: lm-eval's version, and a hash of the tasks of one's own.

    Raises:
        ConfigurationError: See `harness_version`.
    """
    return {"lm_eval": harness_version(config), "own": _own_tasks(config)}


def check_same_tasks(config: HarnessConfig, wanted: Mapping[str, str | None]) -> None:
    """Refuse an lm-eval, or tasks of one's own, that are others here than where the run was started.

    Args:
        config: What would run here.
        wanted: What `tasks_in_question` returned there.

    Raises:
        ConfigurationError: They are others; or see `harness_version`.
    """
    here = tasks_in_question(config)
    if here["lm_eval"] != wanted["lm_eval"]:
        raise ConfigurationError(
            f"lm_eval.python = {config.python!r} has lm-eval {here['lm_eval']} here, and the run was started with "
            f"{wanted['lm_eval']}: give this worker the same version"
        )
    if here["own"] != wanted["own"]:
        raise ConfigurationError(
            f"lm_eval.include_path = {config.include_path!r} has other tasks here than where the run was started: give "
            "this worker the same files"
        )


def harness_result(
    store: Store, name: str, policy: Artifact, config: HarnessConfig, tasks: Mapping[str, str | None]
) -> Artifact:
    """Return what lm-eval finds of a policy; what the store has is not measured again.

    Args:
        store: Keeps it.
        name: Of the policy, for the log.
        policy: A model.
        config: Which tasks.
        tasks: What `tasks_in_question` returned.

    Raises:
        ConfigurationError: lm-eval has failed.
    """
    decides = {"policy": policy, "settings": config, **tasks}
    draft = Draft(store, provenance_of(NAME, 1, decides))
    if (found := draft.find()) is not None:
        return found
    log(f"lm-eval on {name}: {', '.join(config.tasks)}")
    with draft.measured():
        content = canonical_json(_run(policy, config)).encode()
        return draft.commit(NAME, {RESULTS: content}, sha256_of(content))


def harness_figures(name: str, result: Artifact) -> Iterator[Figure]:
    """Yield a policy's figures in each task.

    Raises:
        ConfigurationError: There are no numbers.
    """
    return read_figures(name, json.loads(read_bytes(result, RESULTS)))


def read_figures(policy: str, results: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield the figures in what lm-eval writes with `--output_path`: `metric,filter` of each task, with its interval.

    Raises:
        ConfigurationError: There are no numbers.
    """
    found = False
    for task, values in results["results"].items():
        rows = int(results.get("n-samples", {}).get(task, {}).get("effective", 0))
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not _is_number(value):
                continue
            error = values.get(f"{metric}_stderr,{chosen}")
            half = NORMAL_95 * float(error) if _is_number(error) else np.nan
            label = f"{task} {metric}" + ("" if chosen == "none" else f" ({chosen})")
            found = True
            yield Figure(policy, NAME, label, float(value), value - half, value + half, rows)
    if not found:
        raise ConfigurationError(
            f"lm-eval has no number for {policy} in {', '.join(results['results'])}: name other tasks"
        )


def _run(policy: Artifact, config: HarnessConfig) -> dict[str, Any]:
    """Return what lm-eval makes of a model; what it prints goes to the standard error as it comes."""
    with scratch_folder(NAME) as folder:
        try:
            done = subprocess.run(
                [*_command(policy, config), "--output_path", str(folder)], stdout=2, timeout=3600 * config.timeout_hours
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigurationError(
                f"lm-eval was not done after lm_eval.timeout_hours = {config.timeout_hours:g}: raise it, or set "
                "lm_eval.limit"
            ) from error
        if done.returncode or not (files := sorted(folder.rglob("results_*.json"))):
            raise ConfigurationError(
                f"lm-eval ended with status {done.returncode}; what it printed is above. Check lm_eval.tasks, and that "
                "their data can be downloaded"
            )
        found: dict[str, Any] = json.loads(files[-1].read_text())
    return {name: found.get(name, {}) for name in ("results", "n-samples", "n-shot", "versions", "higher_is_better")}


def _command(policy: Artifact, config: HarnessConfig) -> list[str]:
    model = f"pretrained={model_folder(policy)},dtype={config.dtype}"
    model += ",trust_remote_code=True" if trusts_remote_code(policy) else ""
    command = [config.python, "-P", "-m", "lm_eval", "--model", "hf", "--model_args", model]
    command += ["--tasks", ",".join(config.tasks), "--batch_size", str(config.batch_size)]
    for flag in ("include_path", "num_fewshot", "limit", "device"):
        if (value := getattr(config, flag)) is not None:
            command += [f"--{flag}", str(value)]
    return [*command, *(["--apply_chat_template"] if config.apply_chat_template else [])]


def _own_tasks(config: HarnessConfig) -> str | None:
    """Return a hash of the tasks of one's own; None without any."""
    if config.include_path is None:
        return None
    folder = Path(config.include_path)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".yaml", ".yml", ".py"))
    return sha256_of(
        canonical_json({str(path.relative_to(folder)): sha256_of(path.read_bytes()) for path in files}).encode()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
