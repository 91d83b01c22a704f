"""The catalog of a store, and the tree of what an artifact was made from."""

import pytest
from chains import Origin, checkpoint, hex_of, output, part

from tasks.inspection.catalog import read_catalog
from tasks.inspection.lineage import find_entry, settings_of, source_path, trace
from tasks.store.artifacts import Provenance
from tasks.store.folders import Store
from tasks.store.manifests import read_files

DATA, MODEL = hex_of("a data file"), hex_of("store_model base")
SOURCE = {"path": "s3://bucket/prompts.jsonl", "revision": None, "split": "train"}


@pytest.fixture
def aligned(store):
    """A policy from a model and a data file; completions of it; an aligned model from both."""
    base = output(store, "store_model", "base", Origin({"model": MODEL}, config={"source": {"path": "org/model"}}))
    prompts = output(store, "load_prompts", "p", Origin({"source": DATA}, config={"data": {"prompts": SOURCE}}))
    policy = output(store, "train_sft", "sft", Origin({"base_model": base.digest, "demonstrations": ""}))
    parts = [part(store, "one"), part(store, "two")]
    inputs = {"policy": policy.digest, "prompts": prompts.digest}
    origin = Origin(inputs, parts, config={"sampling": {"k": 16, "stop": []}})
    completions = output(store, "sample_completions", "c", origin)
    return output(store, "train_dpo", "dpo", Origin({"policy": policy.digest, "completions": completions.digest}))


def outline(node: dict) -> dict:
    return {name: outline(source) for name, source in node.get("inputs", {}).items()}


def test_a_tree_goes_down_to_data_files_and_models_from_outside(store, aligned):
    catalog = read_catalog(store)
    tree = trace(store, catalog, find_entry(catalog, aligned.digest))
    base = {"base_model": {"model": {}}}
    assert outline(tree) == {"policy": base, "completions": {"policy": {}, "prompts": {"source": {}}}}
    assert (tree["stage"], tree["digest"], tree["where"]) == ("train_dpo", aligned.digest, aligned.uri)
    assert tree["made"].endswith("+00:00")
    completions = tree["inputs"]["completions"]
    assert completions["settings"] == {"sampling.k": 16}
    assert completions["parts"] == {f"tables/completions/{hex_of('t')}": {"parts": 2, "rows": 6, "missing": 0}}
    assert completions["inputs"]["policy"]["repeated"], "an input that two have is traced once"
    source = completions["inputs"]["prompts"]["inputs"]["source"]
    assert source == {"stage": "data", "digest": DATA, "where": "s3://bucket/prompts.jsonl"}
    model = tree["inputs"]["policy"]["inputs"]["base_model"]["inputs"]["model"]
    assert model == {"stage": "model", "digest": MODEL, "where": "org/model"}


def test_what_served_to_make_an_artifact_is_listed_apart(store):
    one, two = part(store, "one"), part(store, "two", "ref_logps")
    output(store, "train_dpo", "dpo", Origin(parts=[one], keeps=[two]))
    store.delete(store.folder_of(two))
    catalog = read_catalog(store)
    tree = trace(store, catalog, find_entry(catalog, hex_of("train_dpo dpo")))
    assert tree["parts"] == {f"tables/completions/{hex_of('t')}": {"parts": 1, "rows": 3, "missing": 0}}
    assert tree["keeps"] == {f"tables/ref_logps/{hex_of('t')}": {"parts": 1, "rows": 0, "missing": 1}}
    assert tree["damage"] == ""


def test_what_is_gone_from_the_store_ends_the_chain(store, aligned):
    catalog = read_catalog(store)
    policy = find_entry(catalog, hex_of("train_sft sft"))
    store.delete(policy.folder)
    catalog = read_catalog(store)
    tree = trace(store, catalog, find_entry(catalog, aligned.digest))
    assert tree["inputs"]["policy"]["where"] == "not in this store"
    assert tree["inputs"]["completions"]["inputs"]["policy"]["digest"] == policy.digest


@pytest.mark.parametrize("name", ["train_dpo dpo", "sample_completions c"])
def test_an_artifact_is_found_by_the_beginning_of_digest_or_key(store, aligned, name):
    catalog, stage = read_catalog(store), name.split()[0]
    entry = next(entry for entry in catalog.select("stage") if entry.folder.startswith(stage))
    for prefix in (entry.digest, entry.digest[:6], hex_of(name), hex_of(name)[:6]):
        assert find_entry(catalog, prefix) == entry


def test_what_names_none_or_several_is_refused(tmp_path):
    store = Store(str(tmp_path))
    keys = [output(store, "load_prompts", name, content="same").uri.rpartition("/")[2] for name in "ab"]
    catalog = read_catalog(store)
    with pytest.raises(ValueError, match="at least 6 digits"):
        find_entry(catalog, keys[0][:5])
    with pytest.raises(ValueError, match="no artifact"):
        find_entry(catalog, "0" * 6)
    with pytest.raises(ValueError, match="2 artifacts begin with") as caught:
        find_entry(catalog, hex_of("same"))
    assert all(f"load_prompts/{key}" in str(caught.value) for key in keys)
    assert find_entry(catalog, keys[0]).folder == f"load_prompts/{keys[0]}"


@pytest.mark.parametrize(
    ("stage", "config", "path"),
    [
        ("load_prompts", {"data": {"prompts": {"path": "p"}, "evaluation_prompts": {"path": "e"}}}, "p"),
        ("load_held_out", {"data": {"prompts": {"path": "p"}, "evaluation_prompts": {"path": "e"}}}, "e"),
        ("load_held_out", {"data": {"prompts": {"path": "p"}, "evaluation_prompts": None}}, "p"),
        ("load_prompts", {"data": {"prompts": "added"}}, "prompts added to this store"),
        ("load_preferences", {"data": {"preferences": "added"}}, "preferences added to this store"),
        ("load_demonstrations", {"source": {"path": "d"}}, "d"),
        ("store_model", {"source": {"path": "org/m"}, "role": "policy"}, "org/m"),
        ("train_sft", {"sft": {"epochs": 1}}, None),
    ],
)
def test_the_path_of_a_source_is_where_the_settings_name_it(stage, config, path):
    assert source_path(Provenance(stage=stage, version=1, key="", config=config)) == path


def test_settings_are_told_by_section_and_field():
    config = {"dpo": {"beta": 0.1, "lora": {"r": 8}, "max_steps": None, "use": False}, "role": "policy", "extra": {}}
    assert dict(settings_of(config)) == {"dpo.beta": 0.1, "dpo.lora.r": 8, "dpo.use": False, "role": "policy"}


# The catalog


def test_damage_shows_where_sizes_or_names_tell_it(store, aligned, damage):
    catalog = read_catalog(store)
    damages = {"store_model": "truncate", "load_prompts": "delete", "train_sft": "flip"}
    for entry in catalog.select("stage"):
        if how := damages.get(entry.folder.partition("/")[0]):
            artifact = entry.artifact(store)
            damage(f"{artifact.uri}/{read_files(artifact)['data'].path}", how)
    store.delete(catalog.select("part")[0].folder)
    damage(f"{aligned.uri}/manifest.json", "truncate")
    found = {entry.folder.partition("/")[0]: entry.damage for entry in read_catalog(store).select("stage")}
    assert found == {
        "store_model": "damaged: data",
        "load_prompts": "damaged: data",
        "train_sft": "",  # nothing is read, so a flipped bit does not show
        "sample_completions": "damaged: 1 of 2 parts",
        "train_dpo": "damaged: manifest.json",
    }


def test_folders_are_sorted_out_and_strangers_left_out(store, aligned):
    state = checkpoint(store, aligned, 20)
    store._put(b"x", f"train_sft/{'e' * 64}/0123/model.safetensors")
    for stranger in ("notes.txt", "train_sft/notes.txt", "train_sft/short/x", f"tables/completions/{'a' * 64}/file"):
        store._put(b"x", stranger)
    catalog = read_catalog(store)
    assert [entry.folder for entry in catalog.select("checkpoint")] == [store.folder_of(state)]
    assert len(catalog.select("part")) == 2
    assert [entry.damage for entry in catalog.select("stage")] == ["incomplete", "", "", "", "", ""]
    assert catalog.select("stage")[-1].made >= catalog.select("stage")[1].made


def test_a_store_that_is_not_there_is_told_and_not_made(store, tmp_path):
    with pytest.raises(ValueError, match="there is no store at"):
        read_catalog(Store(f"{store.uri}/none"))
    with pytest.raises(ValueError, match="there is no store at"):
        read_catalog(Store(str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
