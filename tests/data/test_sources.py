"""Data files of every kind on real folders, each kind of damage, and real data. S3 is tested with the store."""

import gzip
import hashlib
import json
import os
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.conversations import BadRow
from tasks.data.records import parse_record
from tasks.data.sources import read_rows, source_digest

ROWS = [{"prompt": "größer\u2028als"}, {"prompt": "b"}, {"prompt": None}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def rows(path, **fields):
    return list(read_rows(DataSource(path=str(path), **fields)))


def values(path, **fields):
    return [value for _, value in rows(path, **fields)]


def digest(path, **fields):
    return source_digest(DataSource(path=str(path), **fields))


def parquet(path, table=None):
    pq.write_table(table or pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.JSONL", "a.jsonl.gz", "a.parquet"])
def test_every_kind_of_file_gives_its_rows_in_order(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".parquet"):
        parquet(path)
    else:
        path.write_bytes(gzip.compress(LINES, mtime=0) if name.endswith(".gz") else LINES)
    kind = "row" if name.endswith(".parquet") else "line"
    expected = [(f"{name} {kind} {number}", row) for number, row in enumerate(ROWS, 1)]
    assert rows(path) == expected
    assert rows(path.as_uri()) == expected
    assert digest(path) == digest(path.as_uri()) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": 2}')
    assert rows(tmp_path / "a.jsonl") == [("a.jsonl line 1", {"a": 1}), ("a.jsonl line 4", {"a": 2})]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("form", [lambda rows: rows, lambda rows: {"data": rows, "version": 1}])
def test_one_list_of_objects_is_read_as_its_rows(tmp_path, name, indent, form):
    text = json.dumps(form(ROWS), indent=indent).encode()
    (tmp_path / name).write_bytes(gzip.compress(text, mtime=0) if name.endswith(".gz") else text)
    assert rows(tmp_path / name) == [(f"{name} row {number}", row) for number, row in enumerate(ROWS, 1)]


def test_a_column_called_data_is_no_list_of_rows(tmp_path):
    for row in ({"a": 1, "data": [{"b": 2}]}, {"data": [1]}, {"data": "x"}):
        lines = json.dumps(row) + "\n" + json.dumps(row)
        (tmp_path / "a.jsonl").write_text(lines)
        assert values(tmp_path / "a.jsonl") == [row, row]
    (tmp_path / "a.jsonl").write_text(json.dumps({"a": 1, "data": [{"b": 2}]}))
    assert values(tmp_path / "a.jsonl") == [{"a": 1, "data": [{"b": 2}]}]


def test_a_json_list_that_is_too_large_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.data.readers.WHOLE", 40)
    (tmp_path / "a.json").write_text(json.dumps([{"a": "x" * 40}]))
    with pytest.raises(ConfigurationError, match=r"a.json is one JSON value of more than 40 bytes: write one object a"):
        rows(tmp_path / "a.json")


def test_parquet_rows_are_counted_over_batches_and_groups(tmp_path):
    table = pa.table({"number": range(1, 1001), "messages": [[{"role": "user", "content": "Hi"}]] * 1000})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    found = rows(tmp_path / "a.parquet")
    assert [where for where, _ in found] == [f"a.parquet row {value['number']}" for _, value in found]
    assert found[999] == ("a.parquet row 1000", {"number": 1000, "messages": [{"role": "user", "content": "Hi"}]})


def test_folder_gives_its_data_files_by_relative_name(tmp_path):
    for name, number in (("b.jsonl", 2), ("sub/a.jsonl", 3), ("a.jsonl", 1), (".hidden/a.jsonl", 4), ("_x.jsonl", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'{{"a": {number}}}\n')
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "LICENSE").write_text("MIT")
    (tmp_path / "empty.jsonl").touch()  # beside others, a file may be empty
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "a.jsonl")
    assert [value["a"] for value in values(tmp_path)] == [1, 2, 1, 3]
    assert values(f"{tmp_path}/") == values(tmp_path)
    assert rows(tmp_path)[1][0] == "b.jsonl line 1"
    with pytest.raises(ValueError, match=r"holds no data files: looked for .jsonl, .*, .parquet"):
        rows(tmp_path / "none")


def test_digest_is_of_content_alone(tmp_path):
    for folder, names in (("one", "ab"), ("two", "xy"), ("turned", "ba")):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, "12", strict=True):
            (tmp_path / folder / f"{name}.jsonl").write_text(f'{{"a": {content}}}\n')
    assert digest(tmp_path / "one") == digest(tmp_path / "two") != digest(tmp_path / "turned")
    assert digest(tmp_path / "one") == hashlib.sha256(b'{"a": 1}\n{"a": 2}\n').hexdigest()


def test_saved_datasets(tmp_path):
    train, test = datasets.Dataset.from_list(ROWS), datasets.Dataset.from_list(ROWS[1:2])
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "splits", num_shards={"train": 2, "test": 1})
    test.save_to_disk(tmp_path / "whole")
    assert values(tmp_path / "splits") == ROWS
    assert rows(tmp_path / "splits", split="test") == [("data-00000-of-00001.arrow row 1", ROWS[1])]
    assert values(tmp_path / "whole") == ROWS[1:2]
    assert digest(tmp_path / "whole") == digest(tmp_path / "splits", split="test") != digest(tmp_path / "splits")
    with pytest.raises(ValueError, match="has no split 'validation': set split to one of train, test"):
        rows(tmp_path / "splits", split="validation")
    (tmp_path / "whole" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"state.json does not describe a saved dataset"):
        rows(tmp_path / "whole")


def damaged_parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": ["x" * 1000]}), sink, use_dictionary=False, compression="zstd")
    content = bytearray(sink.getvalue().to_pybytes())
    start = content.index(b"\x28\xb5\x2f\xfd")  # the first zstd frame
    content[start : start + 8] = b"\xff" * 8
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\n\n", "holds no rows"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "holds no rows"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a.jsonl line 2 is not JSON .*: write one object a line"),
        ("a.json", b'{\n  "a": 1\n}\n', "a.json is one JSON object over several lines, which is no row: write one"),
        ("a.json", b'{\n  "a": 1\n', "a.json line 1 is not JSON"),
        ("a.json", b'[{"a": 1}, 2]', "a.json row 2 is a JSON int, not an object"),
        ("a.json", b'[{"a": 1},', "a.json line 1 is not JSON"),
        ("a.json", b"[]", "holds no rows"),
        ("a.jsonl", b'["a"]\n["b"]\n', "a.jsonl line 1 is not JSON .*: write one object a line"),
        ("a.jsonl", b'{"a": 1}\nnull\n', "a.jsonl line 2 is a JSON NoneType, not an object"),
        ("a.jsonl", b'{"a": "\xff"}\n', "a.jsonl line 1 is not JSON .*utf-8"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000, "a.jsonl line 1 is not JSON .*recursion"),
        ("a.jsonl", gzip.compress(LINES, mtime=0), "a.jsonl line 1 is not JSON"),
        ("a.jsonl.gz", LINES, "a.jsonl.gz is not gzip, or is cut short"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-12], "a.jsonl.gz is not gzip, or is cut short"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:10] + b"\xff" * 40, "a.jsonl.gz is not gzip, or is cut short"),
        ("a.parquet", b"", "a.parquet is not Parquet, or is damaged"),
        ("a.parquet", LINES, "a.parquet is not Parquet, or is damaged"),
        ("a.parquet", damaged_parquet()[:-20], "a.parquet is not Parquet, or is damaged"),
        ("a.parquet", damaged_parquet(), "a.parquet is not Parquet, or is damaged"),
        ("a.arrow", LINES, "a.arrow is not Arrow, or is damaged"),
        ("a.csv", b"a\n1\n", r"a.csv is of no known kind: .* \.jsonl, \.json, \.jsonl\.gz, .*\. Convert it: datasets"),
    ],
)
def test_damaged_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        rows(tmp_path / name)
    assert type(caught.value) is ConfigurationError


def test_parquet_text_that_is_not_unicode(tmp_path):
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    with pytest.raises(ValueError, match=r"a.parquet is not Parquet, or is damaged") as caught:
        rows(parquet(tmp_path / "a.parquet", pa.table({"a": broken})))
    assert type(caught.value) is ConfigurationError


def test_damage_is_found_where_it_is(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\noops\n')
    found = read_rows(DataSource(path=str(tmp_path / "a.jsonl")))
    assert [next(found)[1], next(found)[1]] == [{"a": 1}, {"a": 2}]
    with pytest.raises(ValueError, match=r"a.jsonl line 3 is not JSON"):
        next(found)


def test_missing_files_are_named_before_any_row_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("prompts.jsonl", "./org/name", "a/b/c", f"{tmp_path}/x", (tmp_path / "x").as_uri()):
        for function in (read_rows, source_digest):
            with pytest.raises(ConfigurationError, match=f"no file or folder {path} .looked for {tmp_path}/"):
                function(DataSource(path=path))


@pytest.mark.parametrize("field", ["name", "data_dir", "split", "revision"])
def test_settings_that_choose_nothing_are_refused_for_files(tmp_path, field):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    with pytest.raises(ConfigurationError, match=f"{field} = 'x' is for .*hub datasets, but .* a file.*: leave it out"):
        rows(tmp_path / "a.jsonl", **{field: "x"})


def test_credentials_are_neither_taken_nor_shown():
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as caught:
        rows("s3://key:secret@bucket/a.jsonl")
    assert "secret@" not in str(caught.value)


def test_missing_credentials(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(S3FileSystem, "cachable", False)  # neither another test's credentials nor its lack of them
    with pytest.raises(ValueError, match=r"s3://bucket/a.jsonl cannot be read .*: set or check AWS_ACCESS_KEY_ID"):
        rows("s3://bucket/a.jsonl")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A hub cache that holds org/name, as an earlier download leaves it, and no network."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    files = {"train": str(parquet(tmp_path / "a.parquet"))}
    built = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "built"))
    folder = Path(built["train"].cache_files[0]["filename"]).parent
    version = tmp_path / "org___name" / "default" / "0.0.0" / "c0ffee"
    version.mkdir(parents=True)
    info = json.loads((folder / "dataset_info.json").read_text())
    info |= {"dataset_name": "name", "config_name": "default"}
    (version / "dataset_info.json").write_text(json.dumps(info))
    (folder / "parquet-train.arrow").rename(version / "name-train.arrow")


@pytest.mark.usefixtures("hub_cache")
def test_hub_dataset():
    assert rows("org/name") == [(f"org/name (train) row {number}", row) for number, row in enumerate(ROWS, 1)]
    assert digest("org/name") == digest("org/name") != hashlib.sha256().hexdigest()
    with pytest.raises(ValueError, match=r"org/name on the hub, split 'test': .*train"):
        rows("org/name", split="test")
    with pytest.raises(ConfigurationError, match=r"org/other is neither a local file or folder .*hub .*HF_HUB_OFFLINE"):
        rows("org/other")


# Row 121 of helpful has an empty rejected completion and, within its prompt, an empty turn: as a pair it is counted as
# the first, as a prompt as the second. All other odd rows are odd in one way.
@pytest.mark.parametrize(
    ("name", "number", "bad_prompts", "bad_pairs"),
    [
        ("harmless", 2312, {}, {"prompts differ": 5, "empty chosen": 4}),
        (
            "helpful",
            2354,
            {"empty message content": 1},
            {"prompts differ": 9, "chosen equals rejected": 2, "empty rejected": 4},
        ),
    ],
)
def test_real_hh_rows_parse_or_are_counted(name, number, bad_prompts, bad_pairs):
    if "RSDPO_TEST_DATA" not in os.environ:
        pytest.skip("RSDPO_TEST_DATA is unset: no real data")
    found = values(Path(os.environ["RSDPO_TEST_DATA"], "hh-rlhf", f"{name}-base_test.jsonl.gz"))
    counts = {"prompts": Counter(), "preferences": Counter()}
    for row, role in product(found, counts):
        try:
            messages = parse_record(row, role).messages
            assert all(one["role"] != two["role"] for one, two in pairwise(messages))
        except BadRow as bad:
            counts[role][bad.reason] += 1
    assert len(found) == number
    assert counts == {"prompts": bad_prompts, "preferences": bad_pairs}
