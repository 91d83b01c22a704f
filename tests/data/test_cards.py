"""Cards: which files a README.md lists for a configuration and a split."""

import pytest
from data_folders import make, read, refused

from tasks.config.sections import DataSource
from tasks.data.sources import source_digest, unread_files
from tasks.store.filesystem import open_fs

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


# Names that are patterns elsewhere, and S3


def test_a_snapshot_in_s3(s3_uri, tmp_path):
    make(tmp_path, *CARD_FILES, **{"README.md": CARD, "dataset_infos.json": "{}"})
    fs, path = open_fs(s3_uri)
    fs.put(f"{tmp_path}/", f"{path}/", recursive=True)
    assert read(s3_uri) == CARD_FILES[:2]
    assert read(s3_uri, name="harmless", split="test") == read(s3_uri, data_dir="harmless", split="test")
    assert source_digest(DataSource(path=s3_uri)) == source_digest(DataSource(path=str(tmp_path)))
    assert "no such folder in" in refused(s3_uri, data_dir="honest")


def test_all_that_a_card_lists_is_read_or_refused(tmp_path):
    card = "\ufeff---\nconfigs: [{config_name: default, data_files: [{split: train, path: [a.jsonl, b.jsonl]}]}]\n---\n"
    make(tmp_path, "a.jsonl", "c.jsonl", **{"README.md": card})
    assert "has none, or not all, of the files that its README.md lists for split 'train'" in refused(tmp_path)
    make(tmp_path, "b.jsonl")
    assert read(tmp_path) == ["a.jsonl", "b.jsonl"]
    (tmp_path / "README.md").write_text(card.replace("b.jsonl", "b.csv"))
    (tmp_path / "b.csv").write_text("prompt\nx\n")
    assert "b.csv is of no known kind" in refused(tmp_path)
