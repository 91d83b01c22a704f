"""Damage is noticed: in files, in manifests, in parts; what S3 calls a content."""

import hashlib

import pytest
from commits import EVERY_STORE, MODEL, PROVENANCE, commit_model, commit_rewards

from tasks.store.artifacts import DamagedArtifactError, Manifest
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes, read_files, read_manifest
from tasks.store.parquet import read_table
from tasks.store.verify import etag_of

DAMAGES = ["flip", "truncate", "delete"]


# Damage


@EVERY_STORE
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_table_is_noticed(store, how, damage):
    artifact = commit_rewards(store)
    assert store.find("r/1") == artifact  # seen once by this process: it must be compared again all the same
    damage(f"{artifact.uri}/{read_files(artifact)['rows.parquet'].path}", how)
    assert store.find("r/1") is None
    with pytest.raises(DamagedArtifactError, match=r"rows\.parquet.*run again"):
        read_table(artifact)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", MODEL)
def test_a_damaged_file_of_a_model_is_noticed(store, name, how, damage):
    artifact = commit_model(store)
    assert store.find("m/1") == artifact
    damage(f"{artifact.uri}/{read_files(artifact)[name].path}", how)
    assert store.find("m/1") is None
    with pytest.raises(DamagedArtifactError, match=f"{name}.*run again"):
        read_bytes(artifact, name)
    assert all(read_bytes(artifact, other) == MODEL[other] for other in MODEL.keys() - {name})


@pytest.mark.parametrize("how", ["truncate", "delete"])
def test_a_damaged_manifest_is_noticed(store, how, damage):
    artifact = commit_rewards(store)
    damage(f"{artifact.uri}/manifest.json", how)
    assert store.find("r/1") is None
    with pytest.raises(DamagedArtifactError, match="run again"):
        read_table(artifact)


def test_no_flipped_bit_of_the_manifest_changes_an_artifact(tmp_path):
    store = Store(str(tmp_path))
    artifact = commit_rewards(store)
    path = tmp_path / "r" / "1" / "manifest.json"
    intact, found = path.read_bytes(), []
    for place in range(0, len(intact), 2):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :])
        found.append(store.find("r/1"))
    assert [other for other in found if other not in (None, artifact)] == []


@EVERY_STORE
def test_an_artifact_with_a_missing_part_is_not_found(store):
    part = commit_model(store, "m/part")
    whole = Manifest(kind="slices", digest="1", provenance=PROVENANCE, parts={"m/part": part.digest})
    assert store.commit("s/1", {"slices.json": b"[]"}, whole) == store.find("s/1")
    other = whole.model_copy(update={"parts": {"m/part": "0" * 64}})
    store.commit("s/2", {"slices.json": b"[]"}, other)
    assert store.find("s/2") is None, "the part holds something else"
    store.delete("m/part")
    assert store.find("s/1") is None


# What S3 calls a content


def test_etags_are_md5_of_the_content_or_of_its_pieces_md5s(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.store.verify.PIECE", 4)
    assert etag_of(b"1234567") == hashlib.md5(b"1234567").hexdigest()
    pieces = b"".join(hashlib.md5(piece).digest() for piece in (b"1234", b"5678", b"9"))
    (tmp_path / "file").write_bytes(b"123456789")
    assert etag_of(b"123456789") == etag_of(tmp_path / "file") == f"{hashlib.md5(pieces).hexdigest()}-3"


def test_a_file_with_its_etag_is_not_read_to_be_looked_up(s3_uri, monkeypatch, damage):
    store = Store(s3_uri)
    made = store.commit(
        "stage/key", {"a.txt": b"a" * 100}, Manifest(kind="text", digest="c" * 64, provenance=PROVENANCE)
    )
    with monkeypatch.context() as patch:
        patch.setattr("tasks.store.verify.read_with", lambda *_: pytest.fail("the file was read"))
        assert store.find("stage/key") == made
    damage(f"{s3_uri}/stage/key/{read_manifest(made.uri).files['a.txt'].path}", "flip")
    assert store.find("stage/key") is None
