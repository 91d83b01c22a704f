"""A run on the prompts that were added to the store."""

import pytest
from loaded import TOO_LONG, asked, draft, id_of, ids, load, write

from tasks.config.data import DataConfig
from tasks.config.sections import DataSource
from tasks.data.added_prompts import ADDED_PROMPTS, read_added_prompts
from tasks.data.prompt_table import PromptTable
from tasks.data.tally import Tally, read_records
from tasks.prompts import collect_prompts, find_data, load_held_out, load_prompts
from tasks.store.artifacts import NOTHING, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.manifests import read_files
from tasks.store.parquet import read_table


def add(store, path):
    """Add the prompts of a file; return how many were new."""
    tally = Tally(path, 0.01)
    rows = collect_prompts(read_records(DataSource(path=path), "prompts", tally), tally)
    return ADDED_PROMPTS.append(store, ADDED_PROMPTS.lay_out(rows))


def add_texts(store, folder, *texts):
    return add(store, write(folder / "added.jsonl", asked(texts)))


def test_added_prompts_load_as_those_of_a_file_do(tmp_path, local, policy):
    rows = [
        {"prompt": "a", "completion": "first", "id": 7},
        {"prompt": [{"role": "system", "content": "Own."}, {"role": "user", "content": "b"}], "chosen": "kept"},
        *asked(f"Question {n}?" for n in range(40)),
    ]
    path = write(tmp_path / "prompts.jsonl", rows)
    settings = {"evaluation_fraction": 0.3, "max_prompts": 20, "max_evaluation_prompts": 5, "system_prompt": "Be kind."}
    add(local, path)
    from_table = load(local, policy, DataConfig(prompts="added", **settings))
    from_file = load(local, policy, DataConfig(prompts=path, **settings))
    for one, other in zip(from_table, from_file, strict=True):
        assert read_table(one).equals(read_table(other))
        assert (one.digest, one.stats) == (other.digest, other.stats)
    assert from_table[1].rows == 20
    assert all(messages[0]["role"] == "system" for messages in read_table(from_table[1])["messages"].to_pylist())


def test_added_prompts_come_in_the_order_in_which_they_were_added(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(30)]
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    for start in range(0, 30, 3):
        add_texts(local, tmp_path, *texts[start : start + 3])
    data = DataConfig(prompts="added", evaluation_prompts=other)
    assert PromptTable(load(local, policy, data)[1]).ids == [id_of(text) for text in texts]
    few = load(local, policy, data.model_copy(update={"max_prompts": 7}))[1]
    assert PromptTable(few).ids == [id_of(text) for text in texts[:7]]
    assert few.stats["left_out"] == {"beyond the configured number": 23}


def test_prompts_added_during_a_run_are_not_in_it(tmp_path, local, policy):
    add_texts(local, tmp_path, "a", "b")
    data = DataConfig(prompts="added", evaluation_prompts=write(tmp_path / "e.jsonl", asked(["x"])))
    before = find_data(local, data)
    add_texts(local, tmp_path, "c")
    held_out = load_held_out.body(draft(local, "held_out"), before.evaluation_prompts, policy, NOTHING, data, 16)
    prompts = load_prompts.body(draft(local, "prompts"), before.prompts, held_out, policy, NOTHING, data, 16)
    assert ids(prompts) == {id_of("a"), id_of("b")}
    after = find_data(local, data)
    assert after.prompts.digest != before.prompts.digest
    assert (before.prompts.rows, after.prompts.rows) == (2, 3)
    assert ids(load(local, policy, data)[1]) == {id_of("a"), id_of("b"), id_of("c")}


def test_the_digest_of_added_prompts_changes_only_with_them(tmp_path, local):
    add_texts(local, tmp_path, "a", "b")
    before = ADDED_PROMPTS.find(local)
    assert add_texts(local, tmp_path, "b", "a") == 0
    assert ADDED_PROMPTS.find(local) == before
    assert add_texts(local, tmp_path, "a", "c") == 1
    assert ADDED_PROMPTS.find(local).digest != before.digest


def test_a_prompt_in_two_parts_is_read_once(tmp_path, local, policy):
    one, two = Store(f"{local.uri}/one"), Store(f"{local.uri}/two")
    add_texts(one, tmp_path, "a", "b")
    add_texts(two, tmp_path, "b", "c")
    for store in (one, two):  # as two additions at the same time leave it
        part = next(iter(ADDED_PROMPTS.table(store).parts()))
        ADDED_PROMPTS.table(local).append(part.uri.rsplit("/", 1)[1], read_table(part))
    assert ADDED_PROMPTS.find(local).rows == 4
    data = DataConfig(prompts="added", evaluation_prompts=write(tmp_path / "e.jsonl", asked(["x"])))
    prompts = load(local, policy, data)[1]
    assert sorted(PromptTable(prompts).ids) == sorted(id_of(text) for text in "abc")
    assert prompts.stats == {"read": 4, "bad": {}, "left_out": {"duplicate": 1}}


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_part_that_is_damaged_later_is_not_read(tmp_path, local, how, damage):
    add_texts(local, tmp_path, "a", "b")
    found = ADDED_PROMPTS.find(local)
    part = next(iter(ADDED_PROMPTS.table(local).parts()))
    damage(f"{part.uri}/{read_files(part)['rows.parquet'].path}", how)
    with pytest.raises(DamagedArtifactError):
        list(read_added_prompts(found, Tally("added", 0)))
    with pytest.raises(DamagedArtifactError, match="delete it and add its prompts again"):
        ADDED_PROMPTS.find(local)


def test_a_pinned_part_that_holds_other_prompts_is_not_read(tmp_path, local):
    add_texts(local, tmp_path, "a", "b")
    found = ADDED_PROMPTS.find(local)
    part = next(iter(ADDED_PROMPTS.table(local).parts()))
    rest = read_table(part).slice(1)
    local.delete(local.folder_of(part))
    ADDED_PROMPTS.table(local).append(part.uri.rsplit("/", 1)[1], rest)
    with pytest.raises(DamagedArtifactError, match="now holds"):
        list(read_added_prompts(found, Tally("added", 0)))


def test_nothing_added_yet(local):
    with pytest.raises(ValueError, match=r"no prompts have been added .*`python -m flows.add_prompts FILE --store"):
        find_data(local, DataConfig(prompts="added"))


def test_added_prompts_that_the_model_cannot_complete(tmp_path, local, policy):
    add_texts(local, tmp_path, "a", "b", "word " * 600)
    data = DataConfig(prompts="added", evaluation_prompts=write(tmp_path / "e.jsonl", asked(["x"])))
    with pytest.raises(ValueError, match=rf"data.prompts = added: 1 of 3 rows are bad.*{TOO_LONG}") as caught:
        load(local, policy, data)
    assert f"(first added.jsonl prompt {id_of('word ' * 600)})" in str(caught.value)
