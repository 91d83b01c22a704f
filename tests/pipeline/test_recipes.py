"""The recipes of tasks/README.md, followed to the letter; and that the rooms are as they say."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from prefect import flow
from runs import ROOT

from tasks.pipeline.dry_run import PLAN, Plan
from tasks.pipeline.site import Site
from tasks.selection.pairs import Candidates
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_bytes
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices

ROOMS = sorted(path.parent for path in (ROOT / "tasks").glob("*/__init__.py"))
BLOCKS = [
    textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", (ROOT / "tasks/README.md").read_text(), re.S)
]
STAGE, STAGE_LINE, STRATEGY, STRATEGY_LINE = (textwrap.dedent(block).strip() for block in BLOCKS)


def completions(store: Store, *texts: str) -> Artifact:
    row = {"prompt_id": "p", "token_ids": [1], "num_tokens": 1, "finish_reason": "stop"}
    rows = [{**row, "completion_id": number, "completion": text} for number, text in enumerate(texts)]
    table = GrowingTable(store, "completions", Provenance(stage="completions", version=1, key="c"))
    part = table.append("part", pa.Table.from_pylist(rows, SCHEMAS["completions"]))
    draft = Draft(store, Provenance(stage="sample_completions", version=1, key="k"))
    return commit_slices(draft, "completions", [Slice(part)], {})


@pytest.fixture
def measure_diversity():
    spec = spec_from_loader("tasks.diversity", loader=None)
    module = module_from_spec(spec)
    exec(STAGE, vars(module))
    return module.measure_diversity


def test_the_stage_of_the_recipe_computes_once(measure_diversity, prefect_harness, tmp_path):
    store = Store(str(tmp_path))
    drawn, site = completions(store, "a b a b", "a b"), Site(store)
    made = flow(lambda: [measure_diversity(site, drawn) for _ in range(2)], name="recipe")()
    assert made[0] == made[1]
    assert made[0].stats == {"distinct_2": 0.5}, "ab ba ab and ab"
    assert read_bytes(made[0], "distinct_2.txt") == b"0.5\n"


def test_a_dry_run_foresees_the_stage_of_the_recipe(measure_diversity, tmp_path):
    store, plan = Store(str(tmp_path / "store")), Plan(tmp_path)
    drawn, token = completions(store, "a b"), PLAN.set(plan)
    try:
        measure_diversity(Site(store), drawn)
    finally:
        PLAN.reset(token)
    (step,) = plan.steps
    assert (step["stage"], step["action"], step["completions"]) == ("measure_diversity", "compute", 1)


CHECKS = """
import numpy as np, pyarrow as pa
from flows.stages import STAGES, measure_diversity
from tasks.config.compute import ComputeConfig
from tasks.selection.pairs import Candidates
from tasks.selection.strategies import PairsConfig, select

place = "measure-diversity/gpu"
assert ComputeConfig(measure_diversity=place).deployments() == {"measure_diversity": place}
assert measure_diversity.name == "measure-diversity"
assert list(measure_diversity.parameters.properties) == ["store", "completions"]
assert "measure_diversity" in STAGES

rewards = np.array([[3.0, 1.0, 2.0, np.nan], [5.0, 5.0, 5.0, 5.0], [0.0, 4.0, 1.0, 2.0]])
places = np.arange(12).reshape(3, 4)
there = ~np.isnan(rewards)
given = Candidates(pa.array(["a", "b", "c"]), rewards, ~there, there * 3, places, pa.array(map(str, range(12))), there)
found = select(given, PairsConfig(strategy="best_vs_median"))
assert list(zip(*(side.tolist() for side in found))) == [(0, 0, 2), (2, 1, 2)], found
wide = PairsConfig(strategy="best_vs_median", least_gap=2)
assert [side.tolist() for side in select(given, wide)] == [[2], [1], [2]]
assert wide.key_fields() == {"strategy": "best_vs_median", "least_gap": 2}
assert PairsConfig(least_gap=2).key_fields() == PairsConfig().key_fields() == {}, "a new strategy changes no key"
print("followed")
"""


def test_the_lines_of_the_recipes_are_all_that_is_needed(tmp_path):
    for name in ("tasks", "flows"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tasks/diversity.py").write_text(STAGE)
    (tmp_path / "tasks/selection/best_vs_median.py").write_text(STRATEGY)
    insert(tmp_path / "tasks/config/compute.py", "GPU_STAGES = {\n", f"    {STAGE_LINE}\n")
    strategies = tmp_path / "tasks/selection/strategies.py"
    insert(strategies, "STRATEGIES: dict[str, Callable[..., PairIndices]] = {\n", f"    {STRATEGY_LINE}\n")
    insert(strategies, "import annotated_pairs\n", "from tasks.selection.best_vs_median import best_vs_median_pairs\n")
    only_the_copy = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", CHECKS]
    done = subprocess.run(command, cwd=tmp_path, env=only_the_copy, capture_output=True, text=True)
    assert done.stdout == "followed\n", done.stderr


def insert(path: Path, after: str, text: str) -> None:
    source = path.read_text()
    assert source.count(after) == 1
    path.write_text(source.replace(after, after + text))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_lists_its_files(room):
    text = (room / "__init__.py").read_text()
    listed = re.findall(r"^(\w+)\.py +\S", text, re.M)
    assert sorted(listed) == sorted(path.stem for path in room.glob("*.py") if path.stem != "__init__")
    assert "Imports" in text


def test_make_check_knows_every_room():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = re.findall(r"\w+", " ".join(contracts[0]["layers"]))
    assert sorted(named) == [room.name for room in ROOMS]


def test_best_vs_median_is_what_it_says():
    """The example's own rule, for any number of completions: at most half of them are above what is rejected."""
    space: dict = {}
    exec(STRATEGY, space)
    rewards = np.random.default_rng(0).normal(size=(50, 7))
    there = np.ones(rewards.shape, bool)
    given = Candidates(pa.array(map(str, range(50))), rewards, ~there, there * 1, there * 1, pa.array([""]), there)
    found = space["best_vs_median_pairs"](given, space["BestVsMedianSettings"]())
    assert (rewards[found.row, found.chosen] == rewards.max(axis=1)).all()
    assert (rewards[found.row, found.rejected] == np.median(rewards, axis=1)).all()
