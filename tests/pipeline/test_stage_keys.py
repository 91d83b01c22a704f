"""What a stage key is made of."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from doubles import Inner, Settings
from hypothesis import given
from hypothesis import strategies as st
from runs import ROOT

from tasks.config.sections import NOT_IN_KEY, ModelSource
from tasks.config.settings import SamplingConfig
from tasks.store.drafts import canonical_json, stage_key

KEY = {"stage": "build_pairs", "version": 2, "config": {"tau": 1.0, "eta": 0.85}, "inputs": {"rewards": "ab", "q": "é"}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def test_a_key_is_the_hash_of_canonical_json():
    text = '{"config":{"eta":0.85,"tau":1.0},"inputs":{"q":"é","rewards":"ab"},"stage":"build_pairs","version":2}'
    assert stage_key(**KEY) == hashlib.sha256(text.encode()).hexdigest()


def test_numbers_that_json_cannot_write_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"tau": float("nan")})


@given(config=st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_the_order_of_settings_does_not_count(config):
    reordered = dict(reversed(config.items()))
    assert stage_key("s", 1, reordered, reordered) == stage_key("s", 1, config, config)
    assert json.loads(canonical_json(config)) == config


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "train_dpo"},
        {"version": 3},
        {"config": {"tau": 1.0, "eta": 0.86}},
        {"config": {"tau": 1.0}},
        {"config": {"tau": 0.85, "eta": 1.0}},
        {"config": {**KEY["config"], "more": None}},
        {"inputs": {**KEY["inputs"], "rewards": "ac"}},
        {"inputs": {"rewards": "é", "q": "ab"}},
        {"inputs": {"q": "é"}},
        {"config": {}, "inputs": {**KEY["inputs"], **KEY["config"]}},
    ],
)
def test_every_part_of_a_key_counts(change):
    assert stage_key(**KEY) != stage_key(**{**KEY, **change})


def test_a_key_is_equal_in_another_interpreter():
    script = f"from tasks.store.drafts import stage_key; print(stage_key(**{KEY!a}))"
    environment = {**os.environ, "PYTHONHASHSEED": "1234", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == stage_key(**KEY)


def test_fields_that_decide_nothing_are_not_in_the_key():
    assert Settings().key_fields() == Settings(factor=2, inner=Inner(threads=9)).key_fields() == {}
    quick = Settings(batch_size=64, inner=Inner(threads=9), other=Inner(depth=3, threads=9))
    assert quick.key_fields() == {"other": {"depth": 3}}
    assert Settings(factor=3).key_fields() != Settings().key_fields()


def test_where_a_model_is_does_not_count():
    here, there = ModelSource(path="/here"), ModelSource(path="s3://there/model", revision="main")
    assert here.key_fields() == there.key_fields() == {}


def test_the_seed_counts_and_the_engine_s_own_options_do_not():
    key = SamplingConfig().key_fields()
    assert SamplingConfig(seed=SamplingConfig().seed + 1).key_fields() != key
    assert SamplingConfig(k=SamplingConfig().k + 1).key_fields() != key
    assert (
        not {name for name, field in SamplingConfig.model_fields.items() if NOT_IN_KEY in field.metadata} & key.keys()
    )
