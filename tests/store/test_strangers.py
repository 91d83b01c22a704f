"""What a stranger left in a store leads nowhere outside of it."""

from pathlib import Path

import pytest
from small_stores import PROVENANCE, commit, content_of

from tasks.store.artifacts import Artifact, DamagedArtifactError, Manifest, files_digest
from tasks.store.copies import fetch
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.slices import read_slices


@pytest.mark.parametrize("digest", ["../../outside", "/outside", "", ".", "a b", "a\n"])
def test_a_digest_names_no_folder_outside_of_the_cache(digest, tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="digest"):
        Manifest(kind="model", digest=digest, provenance=PROVENANCE)
    forge(store, commit(store, 1), digest=digest)
    assert store.find("m/1") is None


@pytest.mark.parametrize(
    "paths",
    [
        {"config.json": "other/config.json"},  # beside the folder that fetch returns
        {"config.json": "evil.json"},
        {"config.json": "config.json"},
        {"config.json": "../2/config.json"},
        {"config.json": "%2e%2e/config.json"},
        {"config.json": "a/b/config.json", "model.safetensors": "a/b/model.safetensors"},
    ],
)
def test_files_that_lie_elsewhere_make_no_artifact(paths, tmp_path):
    store = Store(str(tmp_path))
    artifact = commit(store, 1)
    files = read_manifest(artifact.uri).files
    forge(
        store,
        artifact,
        files=files | {name: files[name].model_copy(update={"path": path}) for name, path in paths.items()},
    )
    assert store.find("m/1") is None
    with pytest.raises(DamagedArtifactError):
        fetch(artifact)


@pytest.mark.parametrize("part", ["../other/m/1", "/m/1", "s3://other/m/1", "m/%2e%2e/1"])
def test_parts_are_of_this_store(part, tmp_path):
    store = Store(str(tmp_path / "store"))
    commit(Store(str(tmp_path / "other")), 1)
    listing = b'[{"part": "%s", "digest": "1", "rows": 1, "prompt_ids": null}]' % part.encode()
    artifact = store.commit(
        "s/1", {"slices.json": listing}, Manifest(kind="completions", digest="1", provenance=PROVENANCE)
    )
    with pytest.raises(ValueError, match="no path within a store"):
        read_slices(store, artifact)
    with pytest.raises(ValueError, match="no path within a store"):
        store.folder_of(Artifact(kind="model", uri=f"{store.uri}/{part}", digest="1"))
    forge(store, artifact, parts={part: "1"})
    assert store.find("s/1") is None


def test_links_in_a_store_lead_no_write_and_no_deletion_outside(tmp_path):
    store, outside = Store(str(tmp_path / "store")), tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("mine")
    folder = Path(store.root) / "m" / "1" / files_digest(content_of(1))[:16]
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to(outside / "config.json")
    (folder.parent / "manifest.json").symlink_to(outside / "config.json")
    assert commit(store, 1) == store.find("m/1")
    (folder / "link").symlink_to(outside)
    store.delete("m/1")
    (Path(store.root) / "m" / "2").symlink_to(outside)
    store.delete("m/2")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"config.json": "mine"}
    assert store.list("m") == []


def forge(store: Store, artifact: Artifact, **changes: object) -> None:
    """Write the manifest of an artifact anew, changed and sealed."""
    forged = Manifest.model_construct(**{**dict(read_manifest(artifact.uri)), **changes}).sealed()
    store.fs.pipe_file(store.path(f"{store.folder_of(artifact)}/manifest.json"), forged.model_dump_json().encode())
