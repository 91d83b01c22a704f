"""Pairs joined with tokens by ids, in whatever parts the completions come."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pair_tables import NAMES, PAIRS, TOKENS, completions_of, draft, pairs_of, prompts_of
from random_groups import tokenizer

from tasks.config.errors import ConfigurationError
from tasks.config.training import DpoConfig
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS
from tasks.training.dpo_examples import ExampleBuilder, PairsByPrompt, sequence_id


def grouped(store: Store, pairs=PAIRS, parts=(("a", "b"), ("c",)), max_length=100, tokens=TOKENS):
    """Return the groups by prompt, and how many pairs were too long."""
    builder = ExampleBuilder(pairs_of(store, pairs), prompts_of(store), tokenizer(), max_length)
    tables = list(builder.build(store, completions_of(store, parts, tokens)))
    return {row["prompt_id"]: row for table in tables for row in table.to_pylist()}, builder.too_long


def test_by_hand(store):
    groups, too_long = grouped(store)
    assert (set(groups), too_long) == ({"a", "b"}, 0)
    assert groups["a"] == {
        "prompt_id": "a",
        "prompt": [5, 6],
        "completion_ids": [0, 1, 3],  # 2 says what 0 says
        "completions": [[11, 0], [12, 13, 0], [14, 0]],
        "sequence_ids": [sequence_id([5, 6], ids) for ids in ((11, 0), (12, 13, 0), (14, 0))],
        "chosen": [0, 1, 1],
        "rejected": [2, 0, 0],
    }
    assert (groups["b"]["chosen"], groups["b"]["rejected"]) == ([1], [0])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(PAIRS), st.permutations(NAMES), st.integers(0, 3), st.integers(0, 3))
def test_parts_and_orders_do_not_matter(tmp_path_factory, pairs, names, one, two):
    cuts = sorted((one, two))
    parts = [list(part) for part in (names[: cuts[0]], names[cuts[0] : cuts[1]], names[cuts[1] :]) if part]
    whole, _ = grouped(Store(str(tmp_path_factory.mktemp("whole"))))
    assert grouped(Store(str(tmp_path_factory.mktemp("parts"))), pairs, parts)[0] == whole


def test_a_pair_with_a_side_that_is_too_long_is_dropped_and_counted(tmp_path):
    groups, too_long = grouped(Store(str(tmp_path)), max_length=4)  # a/1 has 2 + 3 tokens, b/0 has 1 + 4
    assert too_long == 3
    assert set(groups) == {"a"}
    assert (groups["a"]["completion_ids"], groups["a"]["chosen"], groups["a"]["rejected"]) == ([0, 3], [0], [1])


def test_all_too_long(tmp_path):
    with pytest.raises(ValueError, match=r"all 4 pairs are longer than dpo.max_length = 3 tokens: raise it"):
        grouped(Store(str(tmp_path)), max_length=3)


def test_a_missing_completion_is_an_error(tmp_path):
    with pytest.raises(DamagedArtifactError, match="completion b/7 is in a pair, and missing: build the pairs again"):
        grouped(Store(str(tmp_path)), [*PAIRS, ("b", 0, 7)])


def test_a_missing_prompt_is_an_error(tmp_path):
    with pytest.raises(DamagedArtifactError, match="of 1 paired prompts are missing, first b: build the pairs again"):
        grouped(Store(str(tmp_path)), parts=(("a",), ("c",)))


def test_pairs_by_prompt(tmp_path):
    pairs = PairsByPrompt(pairs_of(Store(str(tmp_path)), PAIRS))
    assert (list(pairs), pairs.total) == (["a", "b"], 4)
    assert "c" not in pairs
    np.testing.assert_array_equal(pairs["a"], [[0, 3], [1, 0], [1, 2]])
    np.testing.assert_array_equal(pairs["b"], [[1, 0]])


def gap_of(chosen: int, rejected: int) -> float:
    return 10.0 * chosen + rejected + 0.5


def test_gaps_stay_with_their_pairs(tmp_path):
    store = Store(str(tmp_path))
    builder = ExampleBuilder(pairs_of(store, PAIRS[::-1], gap_of), prompts_of(store), tokenizer(), 4, with_gaps=True)
    (table,) = builder.build(store, completions_of(store, [["a", "b", "c"]]))
    (row,) = table.to_pylist()  # the pairs with a/1, and b's, are too long
    assert (row["chosen"], row["rejected"], row["reward_gaps"]) == ([0], [1], [gap_of(0, 3)])
    pairs = PairsByPrompt(pairs_of(store, PAIRS[::-1], gap_of), with_gaps=True)
    assert pairs.gaps("a").tolist() == [gap_of(*pair) for pair in pairs["a"].tolist()]
    assert PairsByPrompt(pairs_of(store, PAIRS)).gaps("a") is None


def test_gaps_that_a_loss_cannot_take_are_refused(tmp_path):
    stores, odpo = [Store(str(tmp_path / name)) for name in ("ties", "unknown")], DpoConfig(loss_type="odpo")
    ties = PairsByPrompt(pairs_of(stores[0], PAIRS, lambda *_: 0.0), with_gaps=True)
    with pytest.raises(ConfigurationError, match=r"gap is 0 and must be above 0 .* set dpo.odpo_scale = linear"):
        ties.check_gaps(odpo)
    ties.check_gaps(DpoConfig(loss_type="rebel"))
    ties.check_gaps(DpoConfig(loss_type="odpo", odpo_scale="linear"))
    unknown = PairsByPrompt(pairs_of(stores[1], PAIRS, lambda chosen, _: np.nan if chosen else 1.0), with_gaps=True)
    with pytest.raises(ConfigurationError, match=r"3 of 4 pairs have no reward gap, which dpo.loss_type = rebel reads"):
        unknown.check_gaps(DpoConfig(loss_type="rebel"))


def pairs_in_files(store: Store, files: list[list[tuple[str, int, int]]]) -> Artifact:
    """Commit pairs in files of some each."""
    rest = {"chosen_reward": 1.0, "rejected_reward": 0.0, "reward_gap": 1.0, "preference_prob": 0.7}
    tables = [[{"prompt_id": n, "chosen_id": c, "rejected_id": r, **rest} for n, c, r in pairs] for pairs in files]
    content = {
        f"rows-{number}.parquet": table_bytes(pa.Table.from_pylist(rows, SCHEMAS["pairs"]), "pairs")
        for number, rows in enumerate(tables)
    }
    return draft(store, "pairs").commit("pairs", content, "0" * 64, rows=sum(map(len, tables)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3), st.integers(0, 3)), max_size=8)))
def test_pairs_by_prompt_in_whatever_files(tmp_path_factory, files):
    pairs = PairsByPrompt(pairs_in_files(Store(str(tmp_path_factory.mktemp("store"))), files))
    everything = [pair for file in files for pair in file]
    assert set(pairs) == {name for name, _, _ in everything}
    assert pairs.total == len(everything)
    for name in pairs:
        expected = sorted((chosen, rejected) for own, chosen, rejected in everything if own == name)
        assert pairs[name].tolist() == [list(pair) for pair in expected]


@pytest.mark.slow  # 35 million pairs
def test_more_text_than_an_arrow_array_holds(tmp_path):
    rows, files = 1 << 20, 33
    place = np.arange(rows)
    ids = pa.DictionaryArray.from_arrays(pa.array(place % 500, pa.int32()), pa.array([f"{i:064d}" for i in range(500)]))
    columns = {"prompt_id": ids.cast(pa.string()), "chosen_id": place // 500 % 16, "rejected_id": np.full(rows, 16)}
    zeros = {name: np.zeros(rows) for name in SCHEMAS["pairs"].names[3:]}
    file = table_bytes(pa.table(columns | zeros), "pairs")
    content = {f"rows-{number:02d}.parquet": file for number in range(files)}
    artifact = draft(Store(str(tmp_path)), "pairs").commit("pairs", content, "0" * 64, rows=rows * files)
    pairs = PairsByPrompt(artifact)
    assert pairs.total == rows * files
    assert rows * files * 64 > 2**31
    assert len(pairs[f"{7:064d}"]) == files * (place % 500 == 7).sum()
    assert set(pairs[f"{499:064d}"][:, 0].tolist()) == set(range(16))
