"""lm-eval: what it writes is read, and its environment is asked before anything is measured.

`WRITTEN` is what lm-eval 0.4.13 wrote for a small task of our own on the story model, with a second task beside it.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.benchmarks.harness import (
    check_same_tasks,
    harness_figures,
    harness_result,
    harness_version,
    read_figures,
    tasks_in_question,
)
from tasks.config.benchmarks import HarnessConfig
from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store

WRITTEN = {
    "results": {
        "colours": {"name": "colours", "alias": "colours", "sample_len": 3, "acc,none": 1.0, "acc_stderr,none": 0.0},
        "sums": {
            "alias": "sums",
            "exact_match,strict-match": 0.25,
            "exact_match_stderr,strict-match": 0.01,
            "perplexity,none": 7.5,
            "perplexity_stderr,none": "N/A",
        },
    },
    "n-samples": {"colours": {"original": 3, "effective": 3}, "sums": {"original": 1319, "effective": 100}},
}
TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
ROWS = [("Once upon a", ["time", "banana"]), ("She was very", ["happy", "of"]), ("The dog ran to the", ["park", "is"])]
PYTHON = Path(os.environ.get("RSDPO_LM_EVAL", ".venv-lm-eval/bin/python"))


def test_figures_by_hand():
    sums, perplexity = (each for each in read_figures("p", WRITTEN) if each.figure.startswith("sums"))
    assert (sums.figure, sums.value, sums.rows) == ("sums exact_match (strict-match)", 0.25, 100)
    assert (sums.low, sums.high) == pytest.approx((0.25 - 0.0196, 0.25 + 0.0196), abs=1e-5)
    assert (perplexity.figure, perplexity.value) == ("sums perplexity", 7.5)
    assert np.isnan(perplexity.low)
    colours = next(read_figures("p", WRITTEN))
    assert colours[:4] == ("p", "lm_eval", "colours acc", 1.0)


def test_results_without_a_number_are_refused():
    with pytest.raises(ConfigurationError, match="has no number for p in odd"):
        list(read_figures("p", {"results": {"odd": {"alias": "odd", "acc,none": "N/A"}}}))


def test_an_environment_without_it_is_refused(tmp_path):
    bare = HarnessConfig(tasks=("t",), python=sys.executable)
    with pytest.raises(ConfigurationError, match="has no lm-eval: run `make lm-eval`"):
        harness_version(bare)
    with pytest.raises(ConfigurationError, match="does not run"):
        harness_version(HarnessConfig(tasks=("t",), python=str(tmp_path / "python")))
    with pytest.raises(ConfigurationError, match="is no folder: check the path"):
        harness_version(HarnessConfig(tasks=("t",), include_path=str(tmp_path / "none")))


def test_a_worker_s_lm_eval_is_the_run_s(tmp_path):
    """A Python that says which version it has: what a worker measures is kept under what the run was started with."""
    python, folder = tmp_path / "python", tmp_path / "tasks"
    python.write_text("#!/bin/sh\necho 0.4.13\n")
    python.chmod(0o755)
    folder.mkdir()
    (folder / "colours.yaml").write_text(TASK)
    settings = HarnessConfig(tasks=("colours",), python=str(python), include_path=str(folder))
    given = tasks_in_question(settings)
    assert given["lm_eval"] == "0.4.13"
    check_same_tasks(settings, given)
    with pytest.raises(ConfigurationError, match=r"has lm-eval 0.4.13 here, and the run was started with 0.4.9"):
        check_same_tasks(settings, given | {"lm_eval": "0.4.9"})
    (folder / "colours.yaml").write_text(TASK + "num_fewshot: 1\n")
    with pytest.raises(ConfigurationError, match="has other tasks here than where the run was started"):
        check_same_tasks(settings, given)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="`make lm-eval` has not been run")
def test_a_task_of_one_s_own_is_measured_once(tmp_path, test_data, capfd):
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [json.dumps({"question": text, "choices": choices, "answer": 0}) for text, choices in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (folder / "colours.yaml").write_text(TASK.replace("FILE", str(tmp_path / "rows.jsonl")))
    model = shutil.copytree(test_data / "stories260k", tmp_path / "model")
    policy = Artifact(kind="model", uri=str(model), digest="ab")
    settings = HarnessConfig(tasks=("colours",), python=str(PYTHON), include_path=str(folder), device="cpu")
    store = Store(str(tmp_path / "store"))
    given = tasks_in_question(settings)
    (figure,) = harness_figures("story", harness_result(store, "story", policy, settings, given))
    assert (figure.figure, figure.value, figure.rows) == ("colours acc", 1.0, 3)
    assert "colours" in capfd.readouterr().err
    assert list(harness_figures("story", harness_result(store, "story", policy, settings, given))) == [figure]
    assert "Running loglikelihood" not in capfd.readouterr().err
