"""Several rounds trained on together: whose completions pairs name, what is left out, what a round keeps."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pair_tables import NAMES, PROMPTS, commit
from random_groups import tokenizer

from tasks.pipeline.site import Site
from tasks.round_data import Found, join_completions, join_pairs, keep_preferences
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.cover import join_slices
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_bytes
from tasks.store.parquet import read_table
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import SLICES, Slice, commit_slices, groups_of, read_group, read_slices
from tasks.training.dpo_examples import ExampleBuilder

K = 2
TOKENS = [{"a": [[11, 0], [12, 0]], "b": [[20, 0], [21, 0]]}, {"a": [[11, 0], [13, 0]], "c": [[30, 0], [31, 0]]}]
"""Round -> the tokens of K completions of each prompt; both rounds have drawn [11, 0]."""
PAIRS = [[("a", 1, 0), ("b", 0, 1)], [("a", 0, 1), ("c", 1, 0)]]


def draft(store: Store, name: str) -> Draft:
    return Draft(store, Provenance(stage="test", version=1, key=name))


def prompts_of(store: Store, names=NAMES) -> Artifact:
    messages = {name: [{"role": "user", "content": PROMPTS[name]}] for name in names}
    return commit(
        Store(f"{store.uri}/{''.join(names)}"),
        "prompts",
        [{"prompt_id": name, "messages": messages[name], "source": "test"} for name in names],
    )


def completions_of(store: Store, number: int, tokens: dict, parts: list[list[str]]) -> Artifact:
    """Commit a round's completions in parts of some prompts each."""
    table = GrowingTable(store, "completions", Provenance(stage="completions", version=1, key=f"round{number}"))
    slices = []
    for place, names in enumerate(parts):
        rows = [
            {"prompt_id": name, "completion_id": i, "completion": f"{number}", "token_ids": ids, "num_tokens": len(ids)}
            for name in names
            for i, ids in enumerate(tokens[name])
        ]
        rows = [row | {"finish_reason": "stop"} for row in rows]
        slices.append(Slice(table.append(f"{place}", pa.Table.from_pylist(rows, SCHEMAS["completions"]))))
    return commit_slices(draft(store, f"completions{number}"), "completions", slices, {})


def pairs_of(store: Store, number: int) -> Artifact:
    rest = {"chosen_reward": 1.0, "rejected_reward": 0.0, "reward_gap": 1.0, "preference_prob": 0.7}
    rows = [{"prompt_id": name, "chosen_id": c, "rejected_id": r} | rest for name, c, r in PAIRS[number]]
    return commit(Store(f"{store.uri}/{number}"), "pairs", rows)


def both(store: Store) -> list[Artifact]:
    return [completions_of(store, n, tokens, [[name] for name in tokens]) for n, tokens in enumerate(TOKENS)]


def ids_of(table: pa.Table) -> list[tuple]:
    return sorted(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def test_completions_of_the_second_round_follow_those_of_the_first(tmp_path):
    store = Store(str(tmp_path))
    joined = join_completions.body(draft(store, "joined"), both(store), K)
    assert (joined.rows, joined.stats) == (8, {"completions": [4, 4]})
    groups = groups_of(read_slices(store, joined))
    columns = ["prompt_id", "completion_id", "completion"]
    found = [ids_of(read_group(group, columns)) for group in groups]
    assert sorted(found) == [
        [("a", 0, "0"), ("a", 1, "0"), ("a", 2, "1"), ("a", 3, "1")],  # read together, from two tables
        [("b", 0, "0"), ("b", 1, "0")],
        [("c", 2, "1"), ("c", 3, "1")],
    ]
    completions = {id_: ids for each in read_slices(store, joined) for id_, ids in each.completions().items()}
    assert completions["c"] == {2, 3}


def test_pairs_name_the_completions_of_their_own_round(tmp_path):
    store = Store(str(tmp_path))
    pairs = join_pairs.body(draft(store, "pairs"), [pairs_of(store, 0), pairs_of(store, 1)], prompts_of(store), K)
    columns = ["prompt_id", "chosen_id", "rejected_id"]
    assert ids_of(read_table(pairs, columns)) == [("a", 1, 0), ("a", 2, 3), ("b", 0, 1), ("c", 3, 2)]
    assert (pairs.rows, pairs.stats) == (4, {"pairs": [2, 2], "left_out": 0})


def test_pairs_of_prompts_that_are_not_trained_on_any_more_are_left_out(tmp_path):
    store = Store(str(tmp_path))
    given = [pairs_of(store, 0), pairs_of(store, 1)]
    pairs = join_pairs.body(draft(store, "pairs"), given, prompts_of(store, ("a", "c")), K)
    assert set(read_table(pairs)["prompt_id"].to_pylist()) == {"a", "c"}
    assert (pairs.rows, pairs.stats) == (3, {"pairs": [1, 2], "left_out": 1})


def test_dpo_trains_on_the_tokens_of_both_rounds_and_forwards_equal_ones_once(tmp_path):
    store = Store(str(tmp_path))
    prompts = prompts_of(store)
    completions = join_completions.body(draft(store, "joined"), both(store), K)
    pairs = join_pairs.body(draft(store, "pairs"), [pairs_of(store, 0), pairs_of(store, 1)], prompts, K)
    builder = ExampleBuilder(pairs, prompts, tokenizer(), max_length=64)
    examples = {row["prompt_id"]: row for table in builder.build(store, completions) for row in table.to_pylist()}
    tokens = {
        name: [
            (row["completions"][c], row["completions"][r]) for c, r in zip(row["chosen"], row["rejected"], strict=True)
        ]
        for name, row in examples.items()
    }
    assert tokens == {
        "a": [([12, 0], [11, 0]), ([11, 0], [13, 0])],
        "b": [([20, 0], [21, 0])],
        "c": [([31, 0], [30, 0])],
    }
    assert len(examples["a"]["completions"]) == 3
    assert builder.kept == 4


def test_one_round_alone_is_as_it_was():
    one = Artifact(kind="pairs", uri="u", digest="d")
    assert join_pairs.options["given"]([one]) is one
    assert join_completions.options["given"]([one]) is one
    assert join_pairs.options["given"]([one, one]) is None


def test_slices_that_nobody_shifts_are_written_as_before(tmp_path):
    store = Store(str(tmp_path))
    (first, _) = both(store)
    assert b"shift" not in read_bytes(first, SLICES)
    assert [each.shift for each in read_slices(store, first)] == [0, 0]


@given(st.lists(st.lists(st.integers(0, 5), unique=True, min_size=1), min_size=1, max_size=4), st.integers(1, 3))
def test_any_cut_into_parts_gives_each_prompt_whole_and_the_same_rows(tmp_path_factory, rounds, size):
    store = Store(str(tmp_path_factory.mktemp("store")))
    drawn = []
    for number, names in enumerate(rounds):
        parts = [[f"p{n}" for n in names[start : start + size]] for start in range(0, len(names), size)]
        tokens = {f"p{n}": [[number, n, i] for i in range(K)] for n in names}
        drawn.append(completions_of(store, number, tokens, parts))
    joined = join_completions.body(draft(store, "joined"), drawn, K)
    seen: dict[str, set[int]] = {}
    for group in groups_of(read_slices(store, joined)):
        rows = read_group(group).to_pylist()
        assert not seen.keys() & {row["prompt_id"] for row in rows}, "a prompt in two groups"
        for row in rows:
            seen.setdefault(row["prompt_id"], set()).add(row["completion_id"])
            number, _, i = row["token_ids"]
            assert row["completion_id"] == number * K + i
    expected = {f"p{n}": {r * K + i for r, own in enumerate(rounds) if n in own for i in range(K)} for n in range(6)}
    assert seen == {name: ids for name, ids in expected.items() if ids}
    assert join_slices([]) == []


def test_a_round_that_is_begun_again_keeps_its_preferences(tmp_path, prefect_harness):
    store = Store(str(tmp_path))
    rows = [{"prompt_id": "a", "messages": [], "chosen": text, "rejected": "no"} for text in ("yes", "sure")]
    few, more = (commit(Store(f"{store.uri}/{n}"), "preferences", rows[:n]) for n in (1, 2))
    drawn, other = both(store)
    first = keep_preferences(Site(store), drawn, few, {"eta": 0.9}, Found(preferences=few))
    again = keep_preferences(Site(store), drawn, few, {"eta": 0.9}, Found(preferences=more))
    assert read_table(again).equals(read_table(few))
    assert again == first
    assert again.digest == few.digest
    for changed in ((other, few, {"eta": 0.9}), (drawn, more, {"eta": 0.9}), (drawn, few, {"eta": 0.8})):
        assert keep_preferences(Site(store), *changed, Found(preferences=more)).digest == more.digest
