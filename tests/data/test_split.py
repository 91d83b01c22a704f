"""The split by prompt: stable, without overlap, the same for the same rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loaded import asked, draft, id_of, ids, load, write

from tasks.config.data import DataConfig
from tasks.data.prompt_table import PromptTable, hash_fraction
from tasks.prompts import find_data, load_evaluation_prompts
from tasks.store.artifacts import NOTHING
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.store.schemas import SCHEMAS
from tasks.training_data import load_demonstrations, load_preferences


def compared(store, data, held_out):
    """Return the prompts that the policies are compared on, as the flow takes them."""
    source, limit = find_data(store, data).prompts, data.max_evaluation_prompts
    given = load_evaluation_prompts.options["given"](held_out, limit)
    return given or load_evaluation_prompts.body(draft(store, "evaluation"), source, held_out, limit)


def test_each_prompt_once_and_the_first_wins(tmp_path, local, policy):
    rows = [
        {"prompt": "a", "completion": "first", "id": 7},
        {"prompt": "a", "completion": "second"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "third"}]},
        {"prompt": "b"},
        {"prompt": "c", "chosen": "kept", "rejected": "no"},
    ]
    path = write(tmp_path / "prompts.jsonl", rows)
    other = write(tmp_path / "evaluation.jsonl", asked(["x"]))
    _, prompts = load(local, policy, DataConfig(prompts=path, evaluation_prompts=other))
    found = read_table(prompts)
    assert found.schema == SCHEMAS["prompts"]
    rows = {row["prompt_id"]: row for row in found.to_pylist()}
    assert set(rows) == {id_of("a"), id_of("b"), id_of("c")}
    assert rows[id_of("a")]["reference_completion"] == "first"
    assert rows[id_of("a")]["metadata"] == '{"id":7}'
    assert rows[id_of("b")]["reference_completion"] is None
    assert rows[id_of("c")]["reference_completion"] == "kept"
    assert {row["source"] for row in rows.values()} == {"prompts.jsonl"}
    assert prompts.stats == {"read": 5, "bad": {}, "left_out": {"duplicate": 2}}


def test_the_split_is_stable_when_rows_are_added(tmp_path, local, policy):
    small, large = [f"Question {n}?" for n in range(150)], [f"Question {n}?" for n in range(-50, 300)]
    first = load(local, policy, DataConfig(prompts=write(tmp_path / "a.jsonl", asked(small)), evaluation_fraction=0.2))
    later = load(
        local, policy, DataConfig(prompts=write(tmp_path / "b.jsonl", asked(large[::-1])), evaluation_fraction=0.2)
    )
    known = {id_of(text) for text in small}
    assert ids(later[0]) & known == ids(first[0])
    assert ids(later[1]) & known == ids(first[1])
    assert ids(first[0]) | ids(first[1]) == known
    assert not ids(later[0]) & ids(later[1])
    assert 40 < len(ids(later[0])) < 100  # a fifth of 350
    assert len(ids(later[0])) + len(ids(later[1])) == 350


def test_a_larger_share_holds_out_more_of_the_same(tmp_path, local, policy):
    path = write(tmp_path / "a.jsonl", asked(f"Question {n}?" for n in range(100)))
    some, more = (load(local, policy, DataConfig(prompts=path, evaluation_fraction=share))[0] for share in (0.1, 0.4))
    assert ids(some) < ids(more)


def test_held_out_prompts_are_in_nothing_that_is_trained_on(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(60)]
    pairs = [{"prompt": text, "chosen": "yes", "rejected": "no"} for text in texts]
    path = write(tmp_path / "pairs.jsonl", pairs)
    data = DataConfig(prompts=path, demonstrations=path, preferences=path, evaluation_fraction=0.3)
    held_out, prompts = load(local, policy, data)
    demonstrations = load_demonstrations.body(draft(local, "d"), NOTHING, held_out, NOTHING, data)
    preferences = load_preferences.body(draft(local, "p"), NOTHING, held_out, NOTHING, data)
    every = {id_of(text) for text in texts}
    for artifact in (demonstrations, preferences):
        assert set(read_table(artifact)["prompt_id"].to_pylist()) == ids(prompts) == every - ids(held_out)
        assert artifact.stats["left_out"] == {"held out for evaluation": held_out.rows}
    assert 5 < held_out.rows < 35
    assert read_table(preferences).select(["chosen", "rejected"]).to_pylist()[0] == {"chosen": "yes", "rejected": "no"}


def test_named_evaluation_prompts_leave_training(tmp_path, local, policy):
    path = write(tmp_path / "a.jsonl", asked(["a", "b", "c", "d"]))
    other = write(tmp_path / "b.jsonl", asked(["b", "x"]))
    held_out, prompts = load(local, policy, DataConfig(prompts=path, evaluation_prompts=other))
    assert ids(held_out) == {id_of("b"), id_of("x")}
    assert ids(prompts) == {id_of("a"), id_of("c"), id_of("d")}
    assert prompts.stats["left_out"] == {"held out for evaluation": 1}


def test_evaluation_on_a_few_trains_on_none_of_the_held_out(tmp_path, local, policy):
    path = write(tmp_path / "a.jsonl", asked(f"Question {n}?" for n in range(100)))
    whole = load(local, policy, DataConfig(prompts=path, evaluation_fraction=0.3))
    few = load(local, policy, DataConfig(prompts=path, evaluation_fraction=0.3, max_evaluation_prompts=3))
    assert [artifact.digest for artifact in few] == [artifact.digest for artifact in whole]
    asked_of = compared(local, DataConfig(prompts=path, max_evaluation_prompts=3), few[0])
    assert PromptTable(asked_of).ids == PromptTable(few[0]).ids[:3]
    for enough in (30, 31, None):
        assert compared(local, DataConfig(prompts=path, max_evaluation_prompts=enough), few[0]) == few[0]


def test_a_file_s_name_is_not_in_the_digest_of_its_prompts(tmp_path, local, policy):
    rows = asked(f"Question {n}?" for n in range(30))
    stores = [Store(str(tmp_path / name)) for name in "ab"]
    made = [load(s, policy, DataConfig(prompts=write(tmp_path / f"{s.uri[-1]}.jsonl", rows))) for s in stores]
    assert [artifact.digest for artifact in made[0]] == [artifact.digest for artifact in made[1]]
    assert [read_table(both[0])["source"].unique().to_pylist() for both in made] == [["a.jsonl"], ["b.jsonl"]]


def test_max_prompts_takes_the_first_after_the_split(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(50)]
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", asked(texts)), evaluation_fraction=0.3, max_prompts=7)
    _, prompts = load(local, policy, data)
    expected = [id_of(text) for text in texts if hash_fraction(id_of(text)) >= 0.3][:7]
    assert PromptTable(prompts).ids == expected


def test_the_system_prompt_is_part_of_the_prompt(tmp_path, local, policy):
    own = [{"role": "system", "content": "Own."}, {"role": "user", "content": "b"}]
    path = write(tmp_path / "a.jsonl", [{"prompt": "a"}, {"prompt": own}])
    other = write(tmp_path / "b.jsonl", asked(["x"]))
    data = DataConfig(prompts=path, evaluation_prompts=other, system_prompt="Be kind.")
    held_out, prompts = load(local, policy, data)
    table = PromptTable(prompts)
    assert ids(prompts) == {id_of("a", "Be kind."), id_of("b", "Own.")}
    assert table[id_of("a", "Be kind.")][0] == {"role": "system", "content": "Be kind."}
    assert ids(held_out) == {id_of("x", "Be kind.")}


def test_the_same_rows_give_the_same_digest(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(30)]
    there = tmp_path / "there"
    there.mkdir()
    one = load(local, policy, DataConfig(prompts=write(tmp_path / "a.jsonl", asked(texts)), evaluation_fraction=0.3))
    two = load(local, policy, DataConfig(prompts=write(there / "a.jsonl", asked(texts[::-1])), evaluation_fraction=0.3))
    assert [artifact.digest for artifact in one] == [artifact.digest for artifact in two]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_hash_fraction_is_a_share(text):
    assert 0 <= hash_fraction(text) < 1
    assert hash_fraction(text) == hash_fraction(text)


def test_hash_fraction_by_hand():
    # The first eight bytes of sha256("abc") are ba7816bf 8f01cfea.
    assert hash_fraction("abc") == 0xBA7816BF8F01CFEA / 2**64


def test_hash_fraction_is_even():
    fractions = [hash_fraction(str(n)) for n in range(4000)]
    assert sum(fraction < 0.25 for fraction in fractions) == pytest.approx(1000, abs=100)
