"""What the store knows of a run's aligned model: its base, how it was trained, how it compares. Told by manifests."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.config.losses import needs_reference
from tasks.inspection.browse import find_run
from tasks.selection.strategies import CONTROLS
from tasks.store.artifacts import Artifact, Manifest
from tasks.store.filesystem import in_parallel
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.runs import Run, list_runs

READERS = 16
WITHOUT_MODEL = frozenset({"benchmarks", "comparison", "reward_quality"})
"""What the records of commands name that look at models and make none."""
Row = tuple[str, str]


class ModelFacts(NamedTuple):
    """A run and what its manifests say."""

    run: Run
    made: Mapping[str, Manifest]
    """Artifact of the run -> its manifest."""
    sources: Mapping[str, Manifest]
    """Digest of a model that came into the store -> its manifest."""


class Source(NamedTuple):
    """A model that came into the store."""

    path: str
    revision: str
    """Commit of the hub, else the revision that was asked for; "": neither."""
    is_on_hub: bool
    licence: Mapping[str, str]
    """`license`, `license_name`, `license_link` and `file`, as far as they are known."""

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def place(self) -> str:
        """Return where the model is, as Markdown."""
        link = f"[{self.path}](https://huggingface.co/{self.path})" if self.is_on_hub else f"`{self.path}`"
        return f"{link}, revision `{self.revision}`" if self.revision else link


def choose_run(store: Store, wanted: str) -> Run:
    """Return the finished run whose id begins so; `last`: the newest finished one.

    Raises:
        ConfigurationError: There is none, or several; it has not finished, or has no aligned model; or which one is the
            last cannot be told.
    """
    if not wanted:
        raise ConfigurationError("the run is empty: give the beginning of its id, or last for the newest finished one")
    runs, damaged = list_runs(store)
    run = _newest_finished(store, runs, damaged) if wanted == "last" else find_run(runs, wanted)
    if run.status != "finished":
        state = "is under way" if run.in_use() else "was interrupted"
        raise ConfigurationError(f"run {run.id} {state}: only a finished run has an aligned model; run it to its end")
    if "aligned" not in run.artifacts:
        has = ", ".join(run.artifacts) or "nothing"
        raise ConfigurationError(f"run {run.id} has no aligned model, but {has}: choose another run")
    if "completions" not in run.artifacts:
        raise ConfigurationError(f"run {run.id} was aligned by RLOO, for which there is no model card: choose another")
    return run


def _newest_finished(store: Store, runs: list[Run], damaged: list[str]) -> Run:
    """Return the newest finished run, unless a record that cannot be read may be of a newer one."""
    finished = [run for run in runs if run.status == "finished" and WITHOUT_MODEL.isdisjoint(run.artifacts)]
    lost = [folder for folder in damaged if not finished or folder.rpartition("/")[2] > finished[-1].id]
    if lost:
        raise ConfigurationError(f"{store.uri}/{lost[-1]} is damaged, and may be the last run: give a run's id instead")
    if not finished:
        raise ConfigurationError(f"{store.uri} has no finished run: check the path, or run the pipeline to its end")
    return finished[-1]


def gather(store: Store, run: Run) -> ModelFacts:
    """Read the manifests of what a run made, and of the models that it was given.

    Raises:
        DamagedArtifactError: One is missing or damaged.
        StoreError: The store cannot be read.
    """
    models = [folder for folder in run.stages if folder.startswith("store_model/")]
    folders = [*run.artifacts.values(), *models]
    read = list(in_parallel(lambda folder: read_manifest(f"{store.uri}/{folder}"), folders, READERS))
    made = dict(zip(run.artifacts, read[: len(run.artifacts)], strict=True))
    return ModelFacts(run, made, {manifest.digest: manifest for manifest in read[len(run.artifacts) :]})


def aligned_model(store: Store, facts: ModelFacts) -> Artifact:
    """Return the reference to the aligned model."""
    shown = facts.made["aligned"].model_dump(include={"kind", "digest", "rows", "stats"})
    return Artifact(uri=f"{store.uri}/{facts.run.artifacts['aligned']}", **shown)


def base_model(facts: ModelFacts) -> Source:
    """Return what the policy was fine-tuned from, or the ready policy itself."""
    policy = facts.made["policy"]
    return source_of(facts, policy.provenance.inputs.get("base_model", policy.digest))


def is_ready(facts: ModelFacts, name: str) -> bool:
    """Tell whether a model of the run came as it is, trained elsewhere."""
    return facts.made[name].provenance.stage == "store_model"


def source_of(facts: ModelFacts, digest: str) -> Source:
    """Return where a model came from."""
    if (manifest := facts.sources.get(digest)) is None:
        return Source("a model that is no longer in the store", "", False, {})
    given, stats = manifest.provenance.config["source"], manifest.stats
    commit = stats.get("commit")
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", given["path"]) is not None
    revision = commit or given["revision"] or ""
    return Source(given["path"], revision, bool(commit) and is_hub_id, stats.get("licence", {}))


def method_rows(facts: ModelFacts) -> list[Row]:
    """Return the steps that made the model, and how each was done."""
    steps = {
        "policy": ("fine-tuning", _fine_tuned),
        "reward_model": ("reward model", _rewarded),
        "completions": ("completions", _drawn),
        "pairs": ("pairs", _selected),
        "aligned": ("DPO", _aligned),
    }
    return [(label, describe(facts)) for name, (label, describe) in steps.items() if name in facts.made]


def _fine_tuned(facts: ModelFacts) -> str:
    return _trained(facts, "policy", "sft", "demonstrations")


def _rewarded(facts: ModelFacts) -> str:
    if is_ready(facts, "reward_model"):
        return f"{source_of(facts, facts.made['reward_model'].digest).place} as it is"
    stats = facts.made["reward_model"].stats
    accuracy, pairs = stats.get("accuracy"), stats.get("held_out_pairs")
    tested = "" if accuracy is None else f"; accuracy {accuracy:.3f} on {pairs:,} held-out pairs"
    return _trained(facts, "reward_model", "reward_model", "preference pairs") + tested


def _drawn(facts: ModelFacts) -> str:
    completions = facts.made["completions"]
    given = completions.provenance.config.get("sampling")
    if given is None:
        return f"{completions.rows:,} of the data set itself"
    prompts = completions.stats.get("sampled_prompts", facts.made["prompts"].rows)
    limits = f"temperature {given['temperature']:g}, at most {given['max_new_tokens']} tokens"
    return f"k = {given['k']} for each of {prompts:,} prompts, {limits}"


def _selected(facts: ModelFacts) -> str:
    pairs = facts.made["pairs"]
    given, possible = pairs.provenance.config["pairs"], pairs.stats.get("possible_pairs")
    threshold = f"tau = {given['tau']:g}, eta = {given['eta']:g}"
    names = {"threshold": threshold, **{name: f"{name} control of {threshold}" for name in CONTROLS}}
    cap = f", at most {given['max_pairs_per_prompt']} a prompt" if given["max_pairs_per_prompt"] else ""
    cap += f", at most {given['max_pairs']} in all" if given.get("max_pairs") else ""
    left_out = sum(pairs.stats.get("left_out_prompts", {}).values())
    cap += f", without {left_out:,} prompts that were filtered out" if left_out else ""
    rule = names.get(given["strategy"], given["strategy"])
    return f"{rule}{cap}: {pairs.rows:,}" + (f" of {possible:,} possible" if possible else "")


def _aligned(facts: ModelFacts) -> str:
    given = facts.made["aligned"].provenance.config["dpo"]
    losses = [given["loss_type"]] if isinstance(given["loss_type"], str) else given["loss_type"]
    beta = f"beta = {given['beta']:g}, " if needs_reference(losses) else ""
    return f"{beta}loss {' + '.join(losses)}; {_trained(facts, 'aligned', 'dpo', 'pairs')}"


def _trained(facts: ModelFacts, name: str, section: str, rows: str) -> str:
    manifest = facts.made[name]
    if is_ready(facts, name):
        return f"none: {source_of(facts, manifest.digest).place} as it is"
    given = manifest.provenance.config[section]
    passes = f"{given['max_steps']} steps" if given["max_steps"] else _epochs(given["epochs"])
    lora = given["lora"]
    weights = "all weights" if lora is None else f"LoRA r = {lora['r']}, alpha = {lora['alpha']:g}"
    rate = f"learning rate {given['learning_rate']:g}"
    return f"{manifest.rows:,} {rows}, {passes} in batches of {given['batch_size']}, {rate}, {weights}"


def _epochs(number: float) -> str:
    return "1 epoch" if number == 1 else f"{number:g} epochs"


def settings(facts: ModelFacts) -> dict[str, Any]:
    """Return the run's configuration without where it lay and where it computed."""
    return {name: value for name, value in facts.run.config.items() if name not in ("store", "compute")}
