"""The way from prompts to pairs, as the report shows it."""

import numpy as np
from candidates import candidates

from tasks.pipeline.configuration import Config
from tasks.report.blocks import Table
from tasks.report.facts import Facts
from tasks.report.trained_on import trained_on_section
from tasks.selection.counts import PairCounts
from tasks.selection.strategies import PairsConfig, select
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store

CONFIG = Config.model_validate({"data": {"prompts": "x"}, "sft": {"ready_model": "y"}})
FIRST = "from prompts to pairs"


def funnel(tmp_path, **settings):
    counts = PairCounts(PairsConfig(**settings))
    table = candidates(np.random.default_rng(0).normal(size=(40, 6)) * 2)
    selected = select(table, counts.config)
    counts.add(table, selected)
    counts.before_max_pairs = None if counts.config.max_pairs is None else selected.row.size + 5
    pairs = Artifact(kind="pairs", uri="u", digest="d", rows=selected.row.size, stats=counts.stats())
    section = trained_on_section(Facts(Store(str(tmp_path)), CONFIG, artifacts={"build_pairs": pairs}))
    (table,) = (block for block in section.blocks if isinstance(block, Table) and block.head[0] == FIRST)
    return {row[0].strip(): row[1:] for row in table.rows}, counts


def test_filters_and_a_limit_are_rows(tmp_path):
    rip = {"least_rejected_reward": -4.0, "least_rejected_length": 1, "most_gap": 7.0}
    rows, counts = funnel(tmp_path, max_pairs=100, rip=rip, pass_rate={"at": 0.0, "most": 0.6})
    names = {
        "prompts left out by their worst completion's reward": "rejected_reward",
        "prompts left out by their worst completion's length": "rejected_length",
        "prompts left out by their widest reward gap": "reward_gap",
        "prompts left out by their pass rate": "pass_rate",
    }
    assert {name: rows[name][0] for name in names} == {name: str(counts.left_out[own]) for name, own in names.items()}
    assert sum(counts.left_out.values()) > 5
    assert rows["pairs before max_pairs"][0] == str(counts.pairs + 5)


def test_they_are_none_where_they_are_not_set(tmp_path):
    rows, _ = funnel(tmp_path)
    assert not [name for name in rows if "left out" in name or "max_pairs" in name]


def test_swapped_pairs_are_counted_as_the_others(tmp_path):
    (swapped, _), (kept, _) = funnel(tmp_path, strategy="shuffled"), funnel(tmp_path)
    assert swapped.pop("whose chosen side is the longer one") == ("", "50.0%")  # all are as long
    assert kept.pop("whose chosen side is the longer one") == ("", "50.0%")
    assert swapped == kept
