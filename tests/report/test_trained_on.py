"""What was trained on: what the report says of pairs, by the strategy that selected them."""

import re

import pytest
from browsed_store import Size, write_run

from tasks.pipeline.configuration import Config
from tasks.report.blocks import Text
from tasks.report.facts import Facts
from tasks.report.trained_on import trained_on_section
from tasks.selection.strategies import PairsConfig
from tasks.store.folders import Store


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ("threshold", "tau and eta are one axis: a pair is kept where its reward gap is above tau"),
        ("best_vs_worst", "The pairs of this run are those of best vs worst; the threshold rule, told of below, keeps"),
    ],
)
def test_the_threshold_is_no_rule_of_another_strategy(tmp_path, strategy, told):
    store, pairs = Store(str(tmp_path)), PairsConfig(strategy=strategy)
    _, made = write_run(store, Size(5), pairs=pairs)
    config = Config.model_validate({"data": {"prompts": "x"}, "sft": {"ready_model": "y"}, "pairs": pairs})
    section = trained_on_section(Facts(store, config, artifacts={"build_pairs": made["pairs"]}))
    (text,) = (block.text for block in section.blocks if isinstance(block, Text))
    assert told in re.sub(r"\s+", " ", text)
