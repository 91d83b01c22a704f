"""Folders as people share data: which of their files are read for a split, a configuration or a folder within."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.config.settings import DataConfig
from tasks.data.sources import read_rows, source_digest, unread_files
from tasks.prompts import find_data
from tasks.store.filesystem import open_fs
from tasks.store.folders import Store


def make(folder, *names, **files):
    """Write data files whose one row names them, and other files with the content that is given."""
    for name in names:
        row = {"prompt": name}
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            line = json.dumps(row).encode() + b"\n"
            path.write_bytes(gzip.compress(line) if name.endswith(".gz") else line)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def read(folder, **fields):
    return [row["prompt"] for _, row in read_rows(DataSource(path=str(folder), **fields))]


def refused(folder, **fields):
    with pytest.raises(ConfigurationError) as caught:
        read(folder, **fields)
    with pytest.raises(ConfigurationError):
        source_digest(DataSource(path=str(folder), **fields))
    return str(caught.value)


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


# Cards

CARD = """---
license: mit
configs:
- config_name: helpful
  default: true
  data_files:
  - split: train
    path: helpful/part-*.jsonl
  - split: held_out
    path: [helpful/rest.jsonl, "more/*.jsonl"]
- config_name: harmless
  data_dir: harmless
- config_name: all
  data_files: "*/*.jsonl"
- config_name: gone
  data_files: [{split: train, path: gone/*}, {split: test, path: more/z.jsonl}]
---
# Pairs
"""
CARD_FILES = [
    *("helpful/part-0.jsonl", "helpful/part-1.jsonl", "helpful/rest.jsonl", "more/z.jsonl"),
    *("harmless/train.jsonl", "harmless/test.jsonl"),
]


def test_the_card_tells_configurations_and_splits(tmp_path):
    make(tmp_path, *CARD_FILES, **{"README.md": CARD})
    assert read(tmp_path) == read(tmp_path, name="helpful") == CARD_FILES[:2]
    assert read(tmp_path, split="held_out") == CARD_FILES[2:4]
    assert read(tmp_path, name="harmless", split="test") == ["harmless/test.jsonl"]
    assert read(tmp_path, name="all") == sorted(CARD_FILES)
    assert "has no split 'test': set split to one of train, held_out" in refused(tmp_path, split="test")
    assert "no configuration 'other': set name to one of helpful, harmless, all" in refused(tmp_path, name="other")
    assert "README.md lists for split 'train': download them, or set split to one of test" in refused(
        tmp_path, name="gone"
    )
    assert unread_files(DataSource(path=str(tmp_path), name="harmless")) == sorted(
        ["README.md", "harmless/test.jsonl (split test)", *CARD_FILES[:4]]
    )


def test_a_card_without_a_default_configuration(tmp_path):
    make(tmp_path, *CARD_FILES, **{"README.md": CARD.replace("  default: true\n", "")})
    assert "has several configurations: set name to one of helpful, harmless, all, gone" in refused(tmp_path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("configs: [", "the YAML at its head cannot be read"),
        ("configs: 3", "the YAML at its head cannot be read"),
        ("configs:\n- data_files: a.jsonl", "the YAML at its head cannot be read"),
        ("configs:\n- config_name: a\n  data_files: hf://datasets/x/a.jsonl", "download it first"),
        ("configs:\n- config_name: a\n  data_files: '**.jsonl'", "README.md, data_files: Invalid pattern"),
    ],
)
def test_a_card_that_cannot_be_read(tmp_path, head, message):
    make(tmp_path, "a.jsonl", **{"README.md": f"---\n{head}\n---\n"})
    assert message in refused(tmp_path)


@pytest.mark.parametrize("text", ["# Data", "---\nlicense: mit\n---\n", "---\n---\n", "------\nnotes"])
def test_a_card_that_says_nothing_of_files(tmp_path, text):
    make(tmp_path, "a.jsonl", **{"README.md": text})
    assert read(tmp_path) == ["a.jsonl"]


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


def test_a_snapshot_in_s3(s3_uri, tmp_path):
    make(tmp_path, *CARD_FILES, **{"README.md": CARD, "dataset_infos.json": "{}"})
    fs, path = open_fs(s3_uri)
    fs.put(f"{tmp_path}/", f"{path}/", recursive=True)
    assert read(s3_uri) == CARD_FILES[:2]
    assert read(s3_uri, name="harmless", split="test") == read(s3_uri, data_dir="harmless", split="test")
    assert source_digest(DataSource(path=s3_uri)) == source_digest(DataSource(path=str(tmp_path)))
    assert "no such folder in" in refused(s3_uri, data_dir="honest")


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


def test_all_that_a_card_lists_is_read_or_refused(tmp_path):
    card = "\ufeff---\nconfigs: [{config_name: default, data_files: [{split: train, path: [a.jsonl, b.jsonl]}]}]\n---\n"
    make(tmp_path, "a.jsonl", "c.jsonl", **{"README.md": card})
    assert "has none, or not all, of the files that its README.md lists for split 'train'" in refused(tmp_path)
    make(tmp_path, "b.jsonl")
    assert read(tmp_path) == ["a.jsonl", "b.jsonl"]
    (tmp_path / "README.md").write_text(card.replace("b.jsonl", "b.csv"))
    (tmp_path / "b.csv").write_text("prompt\nx\n")
    assert "b.csv is of no known kind" in refused(tmp_path)
