"""What enters a stage key: what differs from the defaults, wherever it is."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import Field

from tasks.config.data import DataConfig
from tasks.config.evaluation import EvaluationConfig
from tasks.config.sections import NOT_IN_KEY, DataSource, ModelSource, Section
from tasks.config.settings import SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig, Lora
from tasks.evaluate import evaluation_settings
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.rewards.functions import GoldReward
from tasks.sampling.completions import completions_table
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft, provenance_of
from tasks.store.folders import Store

MODEL = Artifact(kind="model", uri="s3://b/model", digest="ab")


class Choice(Section):
    """One of the things that a section may hold."""

    model: ModelSource
    weight: float = 1
    threads: Annotated[int, NOT_IN_KEY] = 1


class Holder(Section):
    """A section that holds others in every way."""

    several: tuple[Choice, ...] = ()
    named: dict[str, Choice] = Field(default_factory=dict)
    nested: dict[str, list[Choice]] = Field(default_factory=dict)
    either: Choice | None = None
    inner: Lora | None = Lora(r=4)
    free: dict[str, object] = Field(default_factory=dict)


def choice(where: str, **fields: object) -> Choice:
    return Choice(model=ModelSource(path=where, revision=where), **fields)


# Defaults


def test_a_section_at_its_defaults_counts_as_nothing():
    for section in (Holder, SamplingConfig, ScoringConfig, PairsConfig, DpoConfig, EvaluationConfig):
        assert section().key_fields() == {}
    assert SftConfig(base_model="here").key_fields() == {"base_model": {}}
    assert SftConfig(ready_model="here").key_fields() == {"ready_model": {}}


def test_what_differs_from_its_default_counts_alone():
    assert SamplingConfig(k=8, seed=0).key_fields() == {"k": 8}
    assert DpoConfig(extra={"max_grad_norm": 1.0}).key_fields() == {"extra": {"max_grad_norm": 1.0}}
    assert DpoConfig(extra={"report_to": "tensorboard", "run_name": "a"}).key_fields() == {}  # same model
    assert DpoConfig(extra={"max_grad_norm": 1.0, "report_to": "tensorboard"}).key_fields() == {
        "extra": {"max_grad_norm": 1.0}
    }
    assert Lora(alpha=16.0).key_fields() == Lora(alpha=16).key_fields() == {}  # the default is written 16


def test_what_the_strategy_of_pairs_does_not_read_counts_as_nothing():
    assert PairsConfig(eta=0.9, cap="widest", seed=3).key_fields() == {"eta": 0.9}
    assert PairsConfig(max_pairs_per_prompt=2, seed=3).key_fields() == {"max_pairs_per_prompt": 2, "seed": 3}
    widest = {"max_pairs_per_prompt": 2, "cap": "widest"}
    assert PairsConfig(**widest, seed=3).key_fields() == widest
    strategy = {"strategy": "best_vs_worst"}
    assert PairsConfig(**strategy, eta=0.9, truncated="keep").key_fields() == {**strategy, "truncated": "keep"}
    assert PairsConfig(strategy="annotation", truncated="keep").key_fields() == {"strategy": "annotation"}
    assert PairsConfig(beta_rso=2.0, accepted_rso=4, ranking_rso="tournament").key_fields() == {}
    rso = {"strategy": "statistical_rejection", "beta_rso": 2.0, "seed": 3}
    assert PairsConfig(**rso, eta=0.9).key_fields() == rso
    for control in ("random", "shuffled"):
        read = {"strategy": control, "eta": 0.9, "seed": 3}
        assert PairsConfig(**read, beta_rso=2.0).key_fields() == read
    for most in (None, 2):  # the widest pairs of a prompt, and of them any so many in all
        limits = {"max_pairs": 9, "seed": 3, **({"max_pairs_per_prompt": 2, "cap": "widest"} if most else {})}
        assert PairsConfig(**limits).key_fields() == limits
    assert PairsConfig(rip={}, pass_rate=None).key_fields() == {}
    filters = {"rip": {"most_gap": 2.0}, "pass_rate": {"at": 0.0, "least": 0.1}}
    assert PairsConfig(**filters).key_fields() == filters


def test_no_section_and_a_section_at_its_defaults_are_told_apart():
    assert DpoConfig(lora=None).key_fields() == {"lora": None}
    assert DpoConfig(lora=Lora()).key_fields() == {}
    assert SftConfig(base_model="m", lora=Lora()).key_fields() == {"base_model": {}, "lora": {}}
    assert Holder(inner=Lora()).key_fields() == {"inner": {}}  # r is 8, and 4 by default
    assert Holder(inner=None).key_fields() == {"inner": None}


def test_classes_that_a_tag_tells_apart_have_keys_apart():
    class Cat(Section):
        sort: Literal["cat"] = "cat"
        lives: int = 9

    class Dog(Section):
        sort: Literal["dog"] = "dog"

    class Pet(Section):
        one: Cat | Dog = Cat()

    assert Pet(one=Dog()).key_fields() == {"one": {"sort": "dog"}}
    assert Pet(one=Cat(lives=8)).key_fields() == {"one": {"sort": "cat", "lives": 8}}
    assert Pet().key_fields() == {}


def test_true_is_not_one():
    class Switch(Section):
        on: bool | int = 1

    assert Switch(on=True).key_fields() == {"on": True}
    assert Switch(on=1).key_fields() == {}


# Sections within


@pytest.mark.parametrize(
    "held",
    [
        lambda own: Holder(several=(own,)),
        lambda own: Holder(named={"a": own}),
        lambda own: Holder(nested={"a": [own, own]}),
        lambda own: Holder(either=own),
    ],
)
def test_a_section_within_follows_the_same_rule(held):
    key = held(choice("/here")).key_fields()
    assert key == held(choice("s3://there/model", threads=9)).key_fields()
    assert "here" not in json.dumps(key)
    assert "threads" not in json.dumps(key)
    assert held(choice("/here", weight=2)).key_fields() != key
    assert held(choice("/here", weight=1.0)).key_fields() == key


def test_how_many_there_are_counts():
    assert Holder(several=(choice("a"),)).key_fields() == {"several": [{"model": {}}]}
    assert Holder(several=(choice("a"), choice("b"))).key_fields() == {"several": [{"model": {}}, {"model": {}}]}


def test_where_data_lie_does_not_count():
    here = DataSource(path="/here", revision="r", name="n", data_dir="d", split="test")
    assert here.key_fields() == DataSource(path="org/there").key_fields() == {}
    assert DataConfig(prompts=here).key_fields() == {"prompts": {}}
    assert DataConfig(prompts="added").key_fields() == {"prompts": "added"}


def test_free_mappings_count_whole():
    assert Holder(free={"a": None, "b": [1, {"c": False}]}).key_fields() == {
        "free": {"a": None, "b": [1, {"c": False}]}
    }


def test_artifacts_within_count_by_digest():
    def provenance(uri: str, digest: str):
        other = Artifact(kind="model", uri=uri, digest=digest)
        return provenance_of("compare", 1, {"policies": [MODEL, other], "by": {"judge": other}, "settings": Holder()})

    one = provenance("/here", "cd")
    assert one.inputs == {"policies.0": "ab", "policies.1": "cd", "by.judge": "cd"}
    assert one.key == provenance("s3://there", "cd").key
    assert one.key != provenance("/here", "ce").key


# What is added later


def test_a_new_field_at_its_default_leaves_a_key_as_it_was():
    class Newer(SamplingConfig):
        min_p: float = 0.0
        penalties: Lora = Lora()

    for fields in ({}, {"k": 4, "stop": ("x",)}):
        old, new = SamplingConfig(**fields), Newer(**fields)
        assert old.key_fields() == new.key_fields()
        keys = [provenance_of("sample", 1, {"policy": MODEL, "sampling": section}).key for section in (old, new)]
        assert keys[0] == keys[1]
        tables = [completions_table(Store("memory://keys"), MODEL, section).folder for section in (old, new)]
        assert tables[0] == tables[1]
    assert Newer(min_p=0.1).key_fields() == {"min_p": 0.1}


def test_a_new_argument_at_its_default_leaves_a_key_as_it_was(tmp_path):
    def old(out: Draft, source: Artifact, limit: int) -> Artifact: ...

    def new(
        out: Draft,
        source: Artifact,
        limit: int,
        more: int = 3,
        pairs: PairsConfig = PairsConfig(),
        base: Artifact = NOTHING,
        none: int | None = 5,
    ) -> Artifact: ...

    new.__name__ = "old"
    site, before, after = Site(Store(str(tmp_path))), stage(version=1)(old), stage(version=1)(new)
    key = before.draft(site, MODEL, 2).provenance.key
    assert key == after.draft(site, MODEL, 2).provenance.key == after.draft(site, MODEL, 2, 3).provenance.key
    changes = ({"more": 4}, {"pairs": PairsConfig(eta=0.9)}, {"base": MODEL}, {"none": None})
    others = {after.draft(site, MODEL, 2, **change).provenance.key for change in changes}
    assert len(others - {key}) == len(changes)


def test_the_table_of_completions_is_one_for_every_k_and_both_sections():
    store = Store("memory://keys")
    sampling = [SamplingConfig(k=k) for k in (2, 16)]
    drawn = evaluation_settings(SamplingConfig(k=3), ScoringConfig(), EvaluationConfig(seed=0), GoldReward()).decoding
    assert len({completions_table(store, MODEL, own).folder for own in (*sampling, drawn)}) == 1
    assert (
        completions_table(store, MODEL, SamplingConfig(seed=1)).folder != completions_table(store, MODEL, drawn).folder
    )
