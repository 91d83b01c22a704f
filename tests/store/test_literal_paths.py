"""Names are names: nothing that fsspec, s3fs or a library takes for a pattern, a link or an encoding is one here."""

import glob
import shutil
import uuid
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_servers import used_by_s3fs

from tasks.config.sections import DataSource, ModelSource
from tasks.data.sources import read_rows, source_digest
from tasks.inspection.catalog import read_catalog
from tasks.inspection.prune import prune
from tasks.models.locate import locate_model
from tasks.store import copies
from tasks.store.artifacts import Artifact, Manifest, Provenance, files_digest
from tasks.store.filesystem import as_meant, file_uri, open_fs
from tasks.store.folders import Store
from tasks.store.runs import RunRecord, read_runs

FOLDER = f"train_sft/{'a' * 64}"
FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
NAMES = st.text("ab01[]*?{}!^-~ #%+=,:;&'@$()|é漢.", min_size=1, max_size=6).filter(
    lambda name: name.strip(". ") == name
)
ODD = [
    "run[1]",
    "run[lr=1e-5]",
    "run*",
    "r?n1",
    "run{1,2}",
    "a b",
    "a+b",
    "a%20b",
    "50%",
    "a#b",
    "a::b",
    "é漢",
    "~",
    "[!1]",
]


def siblings(name: str) -> list[str]:
    """Return names that a pattern, an encoding or a prefix could confuse with one, itself first."""
    plain = name.replace("[", "").replace("]", "").replace("*", "xy").replace("?", "z") or "x"
    others = {plain, f"{name}0", f"{name}-extra", f"x{name}", glob.escape(name), quote(name), unquote(name)}
    return [name, *sorted(other for other in others - {name, ".", ".."} if "/" not in other)]


def commit(store: Store) -> Artifact:
    files = {**FILES, "name.txt": store.uri.encode()}
    provenance = Provenance(stage="train_sft", version=1, key="a" * 64)
    return store.commit(FOLDER, files, Manifest(kind="model", digest=files_digest(files), provenance=provenance))


def check_that_only_the_named_store_changes(parent: str, name: str) -> None:
    stores = [Store(f"{parent}/{sibling}") for sibling in siblings(name)]
    made = [commit(store) for store in stores]
    for store, artifact in zip(stores, made, strict=True):
        assert store.find(FOLDER) == Store(store.uri).find(FOLDER) == artifact
        assert (copies.fetch(artifact) / "name.txt").read_text() == store.uri
        assert list(read_catalog(store).entries) == [FOLDER]
        assert store.list("train_sft") == ["a" * 64]
    target, *others = stores
    target.delete(FOLDER)
    assert target.find(FOLDER) is None
    assert target.list("train_sft") == []
    assert [store.find(FOLDER) for store in others] == made[1:]


@given(name=NAMES)
@settings(max_examples=60)
def test_only_the_named_store_changes_on_disk(name, tmp_path_factory):
    check_that_only_the_named_store_changes(str(tmp_path_factory.mktemp("stores")), name)


def bucket() -> str:
    name = f"test-{uuid.uuid4().hex[:12]}"
    open_fs(f"s3://{name}")[0].mkdir(name)
    return f"s3://{name}"


@given(name=NAMES)
@settings(max_examples=10)
def test_only_the_named_store_changes_in_s3(name, s3_server):
    check_that_only_the_named_store_changes(bucket(), name)


@pytest.mark.parametrize("name", ODD)
def test_odd_names_in_s3(name, s3_server):
    check_that_only_the_named_store_changes(bucket(), name)


@pytest.mark.parametrize("name", ODD)
def test_odd_names_in_another_s3(name, moto_server):
    with used_by_s3fs(moto_server):
        check_that_only_the_named_store_changes(bucket(), name)


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_pruning_stays_in_its_store(where, tmp_path, s3_server):
    parent = str(tmp_path) if where == "disk" else bucket()
    mine, other = Store(f"{parent}/run[1]"), Store(f"{parent}/run1")
    kept = [commit(other), commit(mine)][0]
    for store in (mine, other):
        RunRecord.begin(store).finish({})
    RunRecord.begin(mine).finish({})
    prune(mine, keep_last=1)
    assert (mine.find(FOLDER), len(read_runs(mine))) == (None, 1)
    assert (other.find(FOLDER), len(read_runs(other))) == (kept, 1)


@pytest.mark.parametrize("uri", ["s3://b//x", "s3://b/x//y", "s3://b/../c", "s3://b/./x", "s3://b/x?versionId=1/y"])
def test_keys_that_http_or_s3fs_would_change_are_refused(uri):
    with pytest.raises(ValueError, match="names no single place"):
        Store(uri)


@given(path=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_a_path_survives_its_uri(path):
    path = f"/{path}".rstrip("/") or "/"
    assert open_fs(file_uri(path))[1] == path
    assert Store(file_uri(f"/root{path}")).root == f"/root{path}".rstrip("/")


def test_uris_of_files_may_be_encoded_or_not(tmp_path):
    for name in ("my model[1]", "a%20b", "50%", "a#b?c"):
        (tmp_path / name).mkdir()
        assert open_fs((tmp_path / name).as_uri())[1] == str(tmp_path / name)
        assert open_fs(as_meant(f"file://{tmp_path}/{name}"))[1] == str(tmp_path / name)
    (tmp_path / "a b").mkdir()
    assert open_fs(as_meant(f"file://{tmp_path}/a%20b"))[1] == f"{tmp_path}/a b", "both exist: the standard holds"
    assert open_fs(as_meant(f"file://{tmp_path}/new%20one"))[1] == f"{tmp_path}/new one"


# Models and data


@pytest.mark.parametrize("name", ODD)
def test_models_open_at_any_name(name, tmp_path, s3_server):
    folder, there = tmp_path / name / "model", bucket()
    for parent in (folder, tmp_path / "run1" / "model"):
        (parent / "sub").mkdir(parents=True)
        (parent / "config.json").write_text(parent.parent.name)
        (parent / "sub" / f"{name}.txt").write_text("inside")
        fs, _ = open_fs(there)
        for file in ("config.json", f"sub/{name}.txt"):
            fs.put_file(str(parent / file), open_fs(f"{there}/{parent.parent.name}/model/{file}")[1])
    for path in (str(folder), folder.as_uri(), f"file://{folder}", f"{there}/{name}/model"):
        found = locate_model(ModelSource(path=path))
        assert (found / "config.json").read_text() == name
        assert (found / "sub" / f"{name}.txt").read_text() == "inside"
        assert (found == folder) == (not path.startswith("s3://"))


@pytest.mark.parametrize("name", ODD)
def test_data_is_read_at_any_name(name, tmp_path, s3_server):
    there = bucket()
    for parent in {name, "run1"}:
        (tmp_path / parent).mkdir()
        (tmp_path / parent / f"{name}.jsonl").write_text(f'{{"prompt": "{parent}"}}\n')
        fs, path = open_fs(f"{there}/{parent}/{name}.jsonl")
        fs.put_file(str(tmp_path / parent / f"{name}.jsonl"), path)
    paths = [str(tmp_path / name), (tmp_path / name).as_uri(), f"file://{tmp_path}/{name}", f"{there}/{name}"]
    for path in [*paths, *(f"{path}/{name}.jsonl" for path in (paths[0], paths[2], paths[3]))]:
        source = DataSource(path=path)
        assert [row for _, row in read_rows(source)] == [{"prompt": name}]
        assert source_digest(source) == source_digest(DataSource(path=str(tmp_path / name)))


def test_a_name_that_leads_out_of_a_folder_is_refused(tmp_path, monkeypatch):
    fs, _ = open_fs("memory://m")
    fs.pipe_file("/m/../escaped", b"x")
    with pytest.raises(ValueError, match="leads out of the folder"):
        copies.copy_folder("memory://m", tmp_path / "target")
    assert not (tmp_path / "escaped").exists()


def test_a_deleted_folder_may_be_gone_already(store):
    store.delete(FOLDER)
    commit(store)
    shutil.rmtree(Path(store.root), ignore_errors=True)
    store.delete(FOLDER)
    assert store.find(FOLDER) is None
