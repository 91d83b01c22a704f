"""The text of a model card."""

import re

import pytest
import yaml

from flows.config_files import load_config
from tasks.pipeline.configuration import Config
from tasks.publishing.card import card_text
from tasks.publishing.facts import base_model, gather, method_rows

COMMIT = "c0ffee" * 6 + "cafe"


@pytest.fixture
def facts(kept):
    return gather(*kept)


def head_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def with_source(facts, path, **stats):
    """Return the facts as if the base model had come from elsewhere."""
    ((digest, manifest),) = facts.sources.items()
    config = {**manifest.provenance.config, "source": {**manifest.provenance.config["source"], "path": path}}
    provenance = manifest.provenance.model_copy(update={"config": config})
    told = manifest.model_copy(update={"provenance": provenance, "stats": {**manifest.stats, **stats}})
    return facts._replace(sources={digest: told})


def with_run(facts, **changes):
    return facts._replace(run=facts.run.model_copy(update=changes))


def test_what_stands_in_it(facts):
    card = card_text(facts)
    assert head_of(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rs-dpo", "dpo"],
    }
    assert card.splitlines()[8] == "# base_model, aligned with RS-DPO"
    for line in (
        "| base model | `world/base_model` |",
        "| licence of the base model | unknown: check `world/base_model` |",
        "| win rate over sft by reward model |  | 0.750 [0.625, 0.875] |",
        "| KL from sft a sequence (nats) |  | 0.500 [0.500, 0.500] |",
        "No monitors are recorded for this run.",
        "The run's record has no configuration: it is of an earlier release.",
    ):
        assert f"\n{line}\n" in card, line
    assert f"run `{facts.run.id}`" in card
    assert "trl 1.16.0" in card
    assert not re.search(r"\n\n\n|{{|None", card)


def test_how_it_was_made(facts):
    assert dict(method_rows(facts)) == {
        "fine-tuning": "399 demonstrations, 4 steps in batches of 64, learning rate 0.003, all weights",
        "reward model": "134 preference pairs, 4 steps in batches of 64, learning rate 0.001, all weights; "
        "accuracy 0.312 on 16 held-out pairs",
        "completions": "k = 4 for each of 16 prompts, temperature 1, at most 8 tokens",
        "pairs": "tau = 0.001, eta = 0.85: 96 of 96 possible",
        "DPO": "beta = 0.1, loss sigmoid; 96 pairs, 4 steps in batches of 8, learning rate 0.0003, "
        "LoRA r = 2, alpha = 16",
    }


def test_how_other_pairs_were_selected(facts):
    def told(stats=(), **pairs):
        made = facts.made["pairs"]
        config = {**made.provenance.config, "pairs": {**made.provenance.config["pairs"], **pairs}}
        provenance = made.provenance.model_copy(update={"config": config})
        made = made.model_copy(update={"provenance": provenance, "stats": {**made.stats, **dict(stats)}})
        return dict(method_rows(facts._replace(made={**facts.made, "pairs": made})))["pairs"]

    assert told(strategy="shuffled").startswith("shuffled control of tau = 0.001, eta = 0.85: 96")
    assert told(strategy="best_vs_low", max_pairs=96).startswith("best_vs_low, at most 96 in all: 96")
    left_out = {"left_out_prompts": {"reward_gap": 2, "pass_rate": 1}}
    assert ", without 3 prompts that were filtered out: 96" in told(left_out)


def test_a_base_model_of_the_hub(facts):
    licence = {"license": "apache-2.0", "file": "README.md"}
    card = card_text(with_source(facts, "acme/tiny", commit=COMMIT, licence=licence))
    assert head_of(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "acme/tiny",
        "base_model_relation": "finetune",
        "license": "apache-2.0",
        "tags": ["rs-dpo", "dpo"],
    }
    assert f"| base model | [acme/tiny](https://huggingface.co/acme/tiny), revision `{COMMIT}` |" in card
    assert "| licence of the base model | apache-2.0, as its README.md says |" in card
    assert "The base model's licence is apache-2.0, as its README.md says. Its terms hold" in card


@pytest.mark.parametrize("path", ["data/tiny", "/models/tiny", "s3://bucket/tiny"])
def test_the_hub_is_told_of_no_base_model_that_it_does_not_have(facts, path):
    """A folder may be called as a model of the hub is."""
    assert "base_model" not in head_of(card_text(with_source(facts, path)))


def test_a_licence_of_its_own(facts):
    own = {"license": "other", "license_name": "acme-1", "license_link": "https://acme.example/1", "file": "README.md"}
    card = card_text(with_source(facts, "tiny", licence=own))
    assert head_of(card)["license_name"] == "acme-1"
    assert "acme-1 ([text](https://acme.example/1)), as its README.md says" in card
    unnamed = card_text(with_source(facts, "tiny", licence={"license": "other", "file": "LICENSE"}))
    assert head_of(unnamed)["license_name"] == "other"
    assert "other, as its LICENSE says" in unnamed


def test_a_ready_policy(facts):
    (base,) = facts.sources.values()
    ready = facts._replace(made={**facts.made, "policy": base})
    assert base_model(ready).path == "world/base_model"
    assert dict(method_rows(ready))["fine-tuning"] == "none: `world/base_model` as it is"


def test_a_ready_reward_model(facts):
    (base,) = facts.sources.values()
    ready = facts._replace(made={**facts.made, "reward_model": base})
    assert dict(method_rows(ready))["reward model"] == "`world/base_model` as it is", "there is one"


def test_verdicts(facts):
    verdicts = (
        {"name": "reward hacking", "level": "ok", "text": "a | b"},
        {"name": "KL", "level": "not measured", "text": "no completions\nwere drawn"},
    )
    card = card_text(with_run(facts, verdicts=verdicts))
    assert "| reward hacking | ok | a \\| b |\n| KL | not measured | no completions were drawn |\n" in card
    assert "No monitors" not in card


def test_the_settings_repeat_the_run(facts, monkeypatch, tmp_path):
    config = Config.model_validate(
        {"data": {"prompts": "p.jsonl", "preferences": "p.jsonl"}, "sft": {"ready_model": "m"}, "dpo": {"lora": {}}}
    )
    card = card_text(with_run(facts, config=config.model_dump(mode="json")))
    (text,) = re.findall(r"```yaml\n(.*?)```", card, re.S)
    (tmp_path / "run.yaml").write_text(text)
    assert load_config(str(tmp_path / "run.yaml"), []) == config
    assert "store:" not in text
    assert "compute:" not in text


def test_the_name_that_it_goes_by(facts):
    assert "vllm serve path/to/this/folder\n" in card_text(facts)
    card = card_text(facts, "acme/aligned")
    assert 'pipeline("text-generation", model="acme/aligned")' in card
    assert "vllm serve acme/aligned\n" in card


def test_an_adapter_alone(facts):
    card = card_text(facts, "acme/aligned", adapter=True)
    assert head_of(card)["library_name"] == "peft"
    assert head_of(card)["tags"] == ["rs-dpo", "dpo", "lora"]
    assert f"digest `{facts.made['policy'].digest}`, with the tokenizer" in card
    assert 'PeftModel.from_pretrained(policy, "acme/aligned")' in card
    assert "--enable-lora --lora-modules aligned=acme/aligned --tokenizer acme/aligned" in card


def test_without_a_comparison(facts):
    made = {name: manifest for name, manifest in facts.made.items() if name != "evaluation"}
    assert "It was not compared with the policy" in card_text(facts._replace(made=made))
    older = facts.made["evaluation"].model_copy(update={"stats": {"prompts": 4, "sft": {}}})
    assert "of an earlier release" in card_text(facts._replace(made={**made, "evaluation": older}))
