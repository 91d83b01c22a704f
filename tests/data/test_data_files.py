"""Folders as people share data: which of their files are read for a split or a folder within."""

import json

import datasets
import pytest
from data_folders import make, read, refused

from tasks.config.data import DataConfig
from tasks.config.sections import DataSource
from tasks.data.sources import source_digest, unread_files
from tasks.prompts import find_data
from tasks.store.folders import Store

SPLITS = {
    "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet data/test-00000-of-00001.parquet": {
        "train": "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
        "test": "data/test-00000-of-00001.parquet",
    },
    "data/train_prefs-00000-of-00001.parquet data/test_sft-00000-of-00001.parquet": {
        "test_sft": "data/test_sft-00000-of-00001.parquet",
        "train_prefs": "data/train_prefs-00000-of-00001.parquet",
    },
    "train.jsonl test.jsonl": {"train": "train.jsonl", "test": "test.jsonl"},
    "Train.jsonl TEST.jsonl": {"train": "Train.jsonl", "test": "TEST.jsonl"},
    "my_train_set.json my-eval.json": {"train": "my_train_set.json", "test": "my-eval.json", "eval": "my-eval.json"},
    "train/0.jsonl.gz train/1.jsonl.gz dev/0.jsonl.gz": {
        "train": "train/0.jsonl.gz train/1.jsonl.gz",
        "validation": "dev/0.jsonl.gz",
        "dev": "dev/0.jsonl.gz",
        "valid": "dev/0.jsonl.gz",
    },
    "default/train/0000.parquet default/validation/0000.parquet": {
        "train": "default/train/0000.parquet",
        "validation": "default/validation/0000.parquet",
    },
    "set-train-00000-of-00001.arrow.parquet set-test.parquet": {
        "train": "set-train-00000-of-00001.arrow.parquet",
        "test": "set-test.parquet",
    },
    "a.jsonl sub/b.parquet latest.jsonl trainer.jsonl": {"train": "a.jsonl latest.jsonl sub/b.parquet trainer.jsonl"},
}


@pytest.mark.parametrize("names", SPLITS)
def test_names_tell_the_split(tmp_path, names):
    make(tmp_path, *names.split())
    for split, expected in SPLITS[names].items():
        assert read(tmp_path, split=split) == expected.split()
    there = ", ".join(name for name in SPLITS[names] if name not in ("eval", "dev", "valid"))
    assert f"has no split 'other': set split to one of {there}" in refused(tmp_path, split="other")


def test_train_is_not_made_up(tmp_path):
    make(tmp_path, "test.jsonl")
    assert "has no split 'train': set split to one of test" in refused(tmp_path)


def test_the_digest_is_of_the_files_that_are_read(tmp_path):
    make(tmp_path, "train.jsonl", "test.jsonl")
    whole = source_digest(DataSource(path=str(tmp_path / "train.jsonl")))
    assert source_digest(DataSource(path=str(tmp_path))) == whole
    (tmp_path / "test.jsonl").write_text("damaged")
    (tmp_path / "README.md").write_text("# Data")
    assert source_digest(DataSource(path=str(tmp_path))) == whole


DESCRIPTIONS = {
    "README.md": "# Data",
    "LICENSE": "MIT",
    "dataset_infos.json": '{"default": {"features": {}}}',
    "dataset_info.json": "{}",
    "croissant.json": "{}",
    "notes.json": json.dumps({"about": {"a": 1}, "data": []}, indent=2),
    ".gitattributes": "*.parquet filter=lfs",
}


def test_what_describes_data_is_no_data(tmp_path):
    make(tmp_path, "data/a.jsonl", "rows.json", **DESCRIPTIONS)
    (tmp_path / "more.json").write_text(json.dumps([{"prompt": "more"}], indent=2))
    (tmp_path / "data.json").write_text(json.dumps({"data": [{"prompt": "listed"}]}, indent=2))
    assert read(tmp_path) == ["listed", "data/a.jsonl", "more", "rows.json"]
    unread = unread_files(DataSource(path=str(tmp_path)))
    assert unread == sorted(DESCRIPTIONS.keys() - {".gitattributes"})


def test_a_folder_of_descriptions_holds_no_data(tmp_path):
    make(tmp_path, **DESCRIPTIONS)
    assert "holds no data files: looked for .jsonl" in refused(tmp_path)
    (tmp_path / "train.csv").write_text("prompt\na\n")
    assert "train.csv is of no known kind" in refused(tmp_path)


def test_files_that_are_not_read_are_named_once(tmp_path, capsys):
    make(tmp_path / "hub", "train.jsonl", "test.jsonl", **{"README.md": "# Data"})
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    data = DataConfig(prompts=str(tmp_path / "hub"), evaluation_prompts=str(tmp_path / "hub"), preferences=str(pairs))
    find_data(Store(str(tmp_path / "store")), data)
    lines = [line for line in capsys.readouterr().out.splitlines() if "not read" in line]
    assert lines == [f"{tmp_path / 'hub'}: files not read: README.md, test.jsonl (split test)"]


def test_a_shard_that_is_missing(tmp_path):
    make(tmp_path, "data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet")
    assert "has 2 of 3 files data/train-*-of-00003: download the others, or name one file" in refused(tmp_path)


# Folders within


def test_folders_within_as_hh_has_them(tmp_path):
    names = [f"{folder}/{split}.jsonl.gz" for folder in ("harmless", "helpful") for split in ("test", "train")]
    make(tmp_path, *names, **{"README.md": "---\nlicense: mit\n---\n"})
    assert read(tmp_path) == ["harmless/train.jsonl.gz", "helpful/train.jsonl.gz"]
    for field in ("data_dir", "name"):
        assert read(tmp_path, **{field: "helpful"}) == ["helpful/train.jsonl.gz"]
        assert read(tmp_path, **{field: "helpful"}, split="test") == ["helpful/test.jsonl.gz"]
        message = refused(tmp_path, **{field: "honest"})
        assert (
            f"{field} = 'honest': there is no such folder in {tmp_path}: set it to one of harmless, helpful" in message
        )
    assert unread_files(DataSource(path=str(tmp_path), data_dir="helpful")) == ["test.jsonl.gz (split test)"]


def test_a_name_that_chooses_nothing(tmp_path):
    make(tmp_path, "a.jsonl")
    assert "name = 'default': there is no such folder in" in refused(tmp_path, name="default")
    assert "revision = 'main' is for hub datasets" in refused(tmp_path, revision="main")


def test_saved_datasets_take_no_name_and_no_split_they_lack(tmp_path):
    rows = datasets.Dataset.from_list([{"prompt": "a"}])
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "two")
    rows.save_to_disk(tmp_path / "whole")
    for folder in ("two", "whole"):
        assert "chooses nothing in" in refused(tmp_path / folder, name="default")
    assert read(tmp_path, data_dir="two", split="test") == ["a"]
    assert "has no split 'test', it was saved as a whole: leave split out" in refused(tmp_path / "whole", split="test")


# Names that are patterns elsewhere, and S3


def test_brackets_in_a_path_are_no_pattern(tmp_path):
    folder = make(tmp_path / "run[1]*", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet")
    make(tmp_path / "run1", "data/test-00000-of-00001.parquet")
    assert read(folder) == ["data/train-00000-of-00001.parquet"]


def test_links_are_followed_and_lost_files_are_named(tmp_path):
    make(tmp_path / "elsewhere", "0.jsonl")
    folder = make(tmp_path / "data", "test/0.jsonl")
    (folder / "train").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "round").symlink_to(tmp_path / "data")
    (folder / "loop").symlink_to(folder)
    assert read(folder) == ["0.jsonl"]
    assert read(folder, split="test")[0] == "test/0.jsonl"
    (folder / "train" / "1.jsonl").symlink_to(tmp_path / "nowhere")
    assert "train/1.jsonl is a link to a file that is not there" in refused(folder)


def test_the_hubs_cache_may_hold_several_versions(tmp_path):
    make(tmp_path, "snapshots/aa/train.jsonl", "snapshots/bb/train.jsonl")
    (tmp_path / "blobs").mkdir()
    assert f"name one of {tmp_path}/snapshots/, aa, bb" in refused(tmp_path)
    assert read(tmp_path / "snapshots" / "bb") == ["snapshots/bb/train.jsonl"]


@pytest.mark.parametrize("name", ["train-0000-of-0002.jsonl", "train-0-of-2.jsonl", "train_1_of_2.jsonl"])
def test_a_missing_shard_is_told_by_any_number_of_digits(tmp_path, name):
    assert "has 1 of 2 files train" in refused(make(tmp_path, name))


@pytest.mark.parametrize(
    "name", ["heldout.jsonl", "myTest.jsonl", "split=test/0.jsonl", "HeldOut.jsonl", "testset.jsonl"]
)
def test_names_that_say_held_out_are_not_trained_on(tmp_path, name):
    assert f"{name} seems to be for evaluation" in refused(make(tmp_path, "greatest.jsonl", name))
    (tmp_path / "greatest.jsonl").unlink()
    assert read(tmp_path) == [name]
