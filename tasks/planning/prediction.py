"""The prediction of a whole run: made from a pilot, kept in the store, and compared with what came of it.

The table of predictions is keyed by what decides the run: its data, its policy and reward model, and its settings, but
for the size of the pilot, the monitors, and where it computes. A part of it is one pilot's; the last one counts.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.config.compute import GPU_STAGES
from tasks.config.sections import key_value
from tasks.pipeline.configuration import Config
from tasks.planning.costs import Scale, dpo_tokens, ratio, stage_of, stage_seconds, stored_bytes, whole_bytes
from tasks.planning.estimates import Estimate, exactly
from tasks.planning.observed import DIFFERENT, IN_PAIRS, PAIRS, TOKENS, WITH_PAIR, above, neighbours, observe
from tasks.store.artifacts import Artifact, Manifest
from tasks.store.drafts import keyed
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_manifest
from tasks.store.parquet import read_table

Artifacts = Mapping[str, Artifact]
"""Stage -> its output; `stage reward` -> that for a further reward."""
TABLE_VERSION = 1
UNDECIDED = frozenset({"monitors", "compute", "store"})
"""Sections that do not decide what a run finds."""
TIMED = (*(name for name in GPU_STAGES if name != "train_sft"), "label_preferences", "judge_preferences", "build_pairs")
"""Stages that the whole run still has to compute, or might."""
DPO_TOKENS, SECONDS, BYTES, COST = "DPO tokens", "seconds", "bytes in the store", "cost"


class Planned(NamedTuple):
    """A prediction, and what came of it."""

    prediction: Artifact
    expected: dict[str, Estimate]
    came: dict[str, float]
    """Of a pilot, nothing; of a run, what it has computed of what was predicted."""


def predict(store: Store, config: Config, artifacts: Artifacts) -> dict[str, Estimate]:
    """Return what the whole run will find and cost, from the outputs of a pilot.

    Args:
        store: Holds the outputs.
        config: Of the pilot.
        artifacts: Its outputs.
    """
    scale = _scale(store, config, artifacts)
    found = dict(scale.totals)
    if (tokens := dpo_tokens(artifacts["train_dpo"])) is not None:
        trained = ratio("train_dpo", "training steps", read_manifest(artifacts["train_dpo"].uri), scale)
        found[DPO_TOKENS] = trained.times(tokens, tokens * 0.9, tokens * 1.1)
    seconds = _seconds(artifacts, scale)
    found |= {f"{SECONDS}, {stage}": value for stage, value in seconds.items()}
    found[SECONDS] = exactly(0.0)
    for value in seconds.values():
        found[SECONDS] = found[SECONDS].plus(value)
    found[BYTES] = whole_bytes(stored_bytes(store, artifacts), scale)
    if (price := config.compute.price_per_hour) is not None:
        found[COST] = found[SECONDS].times(price / 3600)
    return found


def keep(store: Store, config: Config, artifacts: Artifacts, name: str, found: Mapping[str, Estimate]) -> Artifact:
    """Append the prediction of a pilot of this name to its table."""
    columns = {field: [getattr(value, field) for value in found.values()] for field in Estimate._fields}
    pilot, whole = artifacts["draw_pilot"].rows, artifacts["load_prompts"].rows
    return _table(store, config, artifacts).append(
        name, pa.table({"name": list(found), **columns}), pilot=pilot, prompts=whole
    )


def look_back(store: Store, config: Config, artifacts: Artifacts, made: Collection[str]) -> Planned | None:
    """Return what the last pilot of a run has predicted, and what came of it; None where there was none."""
    last = max(_table(store, config, artifacts).parts(), key=lambda part: part.uri, default=None)
    if last is None:
        return None
    is_pilot = config.data.pilot is not None
    return Planned(last, read_prediction(last), {} if is_pilot else outcome(store, config, artifacts, made))


def read_prediction(prediction: Artifact) -> dict[str, Estimate]:
    """Return a stored prediction, in its order."""
    rows = read_table(prediction).to_pylist()
    return {row["name"]: Estimate(row["predicted"], row["low"], row["high"]) for row in rows}


def outcome(store: Store, config: Config, artifacts: Artifacts, made: Collection[str]) -> dict[str, float]:
    """Return what a whole run has found and cost, by the names of the prediction; what it did not compute is left out.

    Args:
        store: Holds the outputs.
        config: Of the run.
        artifacts: Its outputs.
        made: URIs of what it computed.
    """
    pairs, sampled, dpo = (artifacts[name] for name in ("build_pairs", "sample_completions", "train_dpo"))
    profile = pairs.stats["profile"]
    points = {(point["tau"], point["eta"]): point["pairs"] for point in profile["grid"]}
    found: dict[str, float] = {
        PAIRS: pairs.rows,
        **{above(config.pairs.tau, eta): points[config.pairs.tau, eta] for eta in neighbours(config.pairs)},
        WITH_PAIR: pairs.stats["prompts"] - pairs.stats["prompts_without_pair"],
        DIFFERENT: round((profile["unique_share"] or 0.0) * sampled.rows),
        TOKENS: sampled.stats["tokens"],
        IN_PAIRS: dpo.stats["completions"],
    }
    if (tokens := dpo_tokens(dpo)) is not None:
        found[DPO_TOKENS] = tokens
    costs = {name: manifest.cost for name, manifest in _timed(artifacts).items() if artifacts[name].uri in made}
    seconds = {stage: cost["seconds"] for stage, cost in costs.items() if "seconds" in cost}
    found |= {f"{SECONDS}, {stage}": value for stage, value in seconds.items()}
    found[SECONDS] = sum(seconds.values())
    found[BYTES] = sum(own + parts for own, parts in stored_bytes(store, artifacts).values())
    if (price := config.compute.price_per_hour) is not None:
        found[COST] = found[SECONDS] * price / 3600
    return found


def _scale(store: Store, config: Config, artifacts: Artifacts) -> Scale:
    observed = observe(store, artifacts["sample_completions"], artifacts["combine_rewards"], config)
    prompts, held_out = artifacts["load_prompts"].rows, artifacts["load_held_out"].rows
    return Scale(
        config,
        (artifacts["draw_pilot"].rows, prompts),
        (artifacts["load_evaluation_prompts"].rows, min(held_out, config.data.max_evaluation_prompts or held_out)),
        {name: float(values.sum()) for name, values in observed.values.items()},
        observed.totals(prompts),
    )


def _seconds(artifacts: Artifacts, scale: Scale) -> dict[str, Estimate]:
    found = {}
    for name, manifest in _timed(artifacts).items():
        stage = manifest.provenance.stage
        gold = scale.config.data.labels_completions
        if stage in ("label_preferences", "judge_preferences", "train_reward_model") and not gold:
            continue  # the whole run finds it in the store
        if (seconds := stage_seconds(stage, manifest, scale)) is not None:
            found[name] = seconds
    return found


def _timed(artifacts: Artifacts) -> dict[str, Manifest]:
    """Return the manifests of what the whole run still has to compute, or might; not of what was taken as it is."""
    read = {name: read_manifest(each.uri) for name, each in artifacts.items() if each and stage_of(name) in TIMED}
    own = {name: manifest for name, manifest in read.items() if manifest.provenance.stage == stage_of(name)}
    return dict(sorted(own.items(), key=lambda item: TIMED.index(stage_of(item[0]))))


def _table(store: Store, config: Config, artifacts: Artifacts) -> GrowingTable:
    sections = {name: value for name, value in config.sections().items() if name not in UNDECIDED}
    decides: dict[str, Any] = {name: key_value(value) for name, value in sections.items() if value != {}}
    names = ["load_prompts", "load_held_out", "train_sft"]
    if not config.data.labels_completions:
        names.append("train_reward_model")
    inputs = {name: artifacts[name].digest for name in names if name in artifacts}
    return GrowingTable(store, "predictions", keyed("predictions", TABLE_VERSION, decides, inputs, {}))
