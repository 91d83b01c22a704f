"""A run on the preferences that were added to the store."""

import pytest
from loaded import asked, draft, id_of, ids, load, write

from tasks.config.data import DataConfig
from tasks.config.sections import DataSource
from tasks.data.added_preferences import ADDED_PREFERENCES, collect_preferences
from tasks.data.tally import Tally, read_records
from tasks.prompts import find_data
from tasks.store.artifacts import NOTHING, DamagedArtifactError
from tasks.store.manifests import read_files
from tasks.store.parquet import read_table
from tasks.training_data import load_preferences

PAIRS = [{"prompt": f"Question {n}?", "chosen": "yes", "rejected": "no", "margin": n} for n in range(40)]


def add(store, path):
    """Add the preferences of a file; return how many were new."""
    tally = Tally(path, 0.01)
    records = read_records(DataSource(path=path), "preferences", tally)
    rows = collect_preferences(records, ADDED_PREFERENCES.ids(store), tally)
    return ADDED_PREFERENCES.append(store, ADDED_PREFERENCES.lay_out(rows))


def loaded(store, held_out, data):
    source = find_data(store, data).preferences
    return load_preferences.body(draft(store, "preferences"), source, held_out, NOTHING, data)


def test_added_preferences_load_as_those_of_a_file_do_held_out_prompts_left_out(tmp_path, local, policy):
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    settings = {"prompts": path, "evaluation_fraction": 0.3, "system_prompt": "Be kind."}
    held_out, prompts = load(local, policy, DataConfig(**settings))
    add(local, path)
    from_table = loaded(local, held_out, DataConfig(**settings, preferences="added"))
    from_file = loaded(local, held_out, DataConfig(**settings, preferences=path))
    assert read_table(from_table).equals(read_table(from_file))
    assert (from_table.digest, from_table.stats) == (from_file.digest, from_file.stats)
    assert set(read_table(from_table)["prompt_id"].to_pylist()) == ids(prompts)
    assert from_table.stats["left_out"] == {"held out for evaluation": held_out.rows}


def test_a_pair_that_two_annotators_prefer_is_trained_on_once(tmp_path, local, policy):
    rows = [{**PAIRS[0], "annotator": name} for name in ("ann", "bob")]
    add(local, write(tmp_path / "pairs.jsonl", rows))
    asked_for = {"prompts": write(tmp_path / "p.jsonl", asked("ab"))}
    data = DataConfig(**asked_for, preferences="added", evaluation_prompts=write(tmp_path / "e.jsonl", asked("x")))
    found = loaded(local, load(local, policy, data)[0], data)
    assert (found.rows, found.stats) == (1, {"read": 2, "bad": {}, "left_out": {"duplicate": 1}})


def test_preferences_added_during_a_run_are_not_in_it_and_change_the_digest(tmp_path, local):
    data = DataConfig(prompts=write(tmp_path / "p.jsonl", asked("ab")), preferences="added")
    with pytest.raises(ValueError, match=r"no preferences have been added .*`python -m flows.add_preferences FILE"):
        find_data(local, data)
    add(local, write(tmp_path / "a.jsonl", PAIRS[:2]))
    before = find_data(local, data).preferences
    assert add(local, write(tmp_path / "b.jsonl", PAIRS[1:3])) == 1
    after = find_data(local, data).preferences
    assert (before.rows, after.rows) == (2, 3)
    assert before.digest != after.digest
    assert [row["prompt_id"] for row in ADDED_PREFERENCES.read(before)] == [id_of(f"Question {n}?") for n in (0, 1)]


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_part_that_is_damaged_later_is_not_read(tmp_path, local, how, damage):
    add(local, write(tmp_path / "a.jsonl", PAIRS[:2]))
    found = ADDED_PREFERENCES.find(local)
    part = next(iter(ADDED_PREFERENCES.table(local).parts()))
    damage(f"{part.uri}/{read_files(part)['rows.parquet'].path}", how)
    with pytest.raises(DamagedArtifactError):
        list(ADDED_PREFERENCES.read(found))
    with pytest.raises(DamagedArtifactError, match="delete it and add its preferences again"):
        ADDED_PREFERENCES.find(local)
