"""Load stages are keyed by what they read."""

import json

import pytest

from tasks.config.data import DataConfig
from tasks.examples.world import write_base_model
from tasks.pipeline.site import Site
from tasks.prompts import load_held_out, load_prompts
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.folders import Store
from tasks.training_data import load_demonstrations, load_preferences

MODEL = Artifact(kind="model", uri="s3://b/model", digest="ab")

LOADS = (load_held_out, load_prompts, load_demonstrations, load_preferences)
FIELDS: dict[str, object] = {
    "evaluation_fraction": 0.2,
    "max_prompts": 5,
    "max_evaluation_prompts": 3,
    "system_prompt": "Be kind.",
    "max_bad_fraction": 0.5,
    "evaluation_prompts": "e.jsonl",
    "decontaminate": 8,
    "consensus": "majority",
}
READS = {
    load_held_out: set(),
    load_prompts: {"max_prompts", "decontaminate"},
    load_demonstrations: {"decontaminate"},
    load_preferences: {"decontaminate", "consensus"},
}
"""What each load stage reads beside what all of them do."""


def key_of(load, data: DataConfig) -> str:
    rest = (data, 16) if load in (load_held_out, load_prompts) else (data,)
    between = (MODEL, MODEL) if load is load_prompts else (MODEL,)
    return load.draft(Site(Store("memory://keys")), MODEL, MODEL, *between, *rest).provenance.key


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_a_setting_that_a_load_stage_does_not_read_is_not_in_its_key(load):
    plain = DataConfig(prompts="p.jsonl")
    keys = {name: key_of(load, DataConfig(prompts="p", **{name: value})) for name, value in FIELDS.items()}
    decide = {name for name, key in keys.items() if key != key_of(load, plain)}
    always = {"evaluation_fraction", "system_prompt", "max_bad_fraction", "evaluation_prompts"}
    assert decide == always | READS[load]
    elsewhere = DataConfig(prompts="added", demonstrations="d", preferences="f")
    assert key_of(load, elsewhere) == key_of(load, plain)


class Watched(DataConfig):
    """A data section that notes which of its fields are read."""

    def __getattribute__(self, name: str) -> object:
        if name in FIELDS or name in ("prompts", "demonstrations", "preferences"):
            READ.add(name)
        return super().__getattribute__(name)


READ: set[str] = set()


@pytest.mark.parametrize("given", [True, False], ids=["file", "fraction"])
def test_a_load_stage_reads_what_it_says(given, tmp_path):
    def write(name: str) -> str:
        texts = {"chosen": "yes", "rejected": "no", "completion": "yes"}
        rows = [{"prompt": f"Question {n} of {name}?", **texts} for n in range(60)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    path, asked = write("rows.jsonl"), write("evaluation.jsonl")
    names = dict.fromkeys(("prompts", "demonstrations", "preferences"), path)
    data = Watched(**names, evaluation_prompts=asked if given else None, evaluation_fraction=0.3)
    store = Store(str(tmp_path / "store"))
    write_base_model(tmp_path / "model", seed=0)
    model = Artifact(kind="model", uri=str(tmp_path / "model"), digest="m")
    source = Artifact(kind="data", uri=path, digest="d")

    def read(load, *arguments: object) -> Artifact:
        draft = load.draft(Site(store), *arguments)
        READ.clear()
        made = load.body(draft, *arguments)
        assert "max_bad_fraction" in READ
        assert READ - {"prompts", "demonstrations", "preferences"} <= set(load.options["reads"]["data"]), load.name
        return made

    held_out = read(load_held_out, source, model, NOTHING, data, 16)
    read(load_prompts, source, held_out, model, NOTHING, data, 16)
    read(load_demonstrations, source, held_out, model, data)
    read(load_preferences, source, held_out, model, data)
