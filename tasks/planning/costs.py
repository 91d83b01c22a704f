"""What the stages of a pilot have cost, and what they will cost in the whole run.

What a stage spends outside of its phases, on models that start and tables that are looked up, it spends once, however
many prompts there are. Its phases take as much longer as there is more of what they work through.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from tasks.config.training import DpoConfig
from tasks.pipeline.configuration import Config
from tasks.planning.estimates import Estimate, exactly
from tasks.planning.observed import IN_PAIRS, PAIRS, TOKENS
from tasks.store.artifacts import Artifact, Manifest
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.manifests import read_manifest
from tasks.store.parquet import read_file

SETUP_BOUNDS, PHASE_BOUNDS, SLACK = (0.3, 1.3), (0.7, 1.3), 1.0
"""Multiples of a prediction in seconds that bound its interval, give or take a second a stage. They are ours, wide
enough for all that benchmarks/pilot.py has measured. What a process loads for the first time takes longest."""
BYTES_BOUNDS = (0.8, 1.1)
"""The same of bytes: files of few rows compress less."""
SHARED_BY_POLICIES = ("sampling prompts", "scoring completions", "gold rewards")
"""Phases of an evaluation that it has for each policy: those of the reference are done in the pilot."""
TRAINING = "training steps"


class Scale(NamedTuple):
    """A pilot and the whole run that it stands for."""

    config: Config
    prompts: tuple[int, int]
    """Of the pilot, of the whole run."""
    evaluation_prompts: tuple[int, int]
    observed: Mapping[str, float]
    """Totals over the prompts of the pilot."""
    totals: Mapping[str, Estimate]
    """Totals over all prompts."""

    def of(self, name: str, done: float = 0.0) -> Estimate:
        """Return how many times the pilot's work the whole run's is.

        Args:
            name: What is worked through.
            done: The share of the pilot's work that the whole run need not do again.
        """
        observed = max(self.observed[name], 1)
        return Estimate(*(max(0.0, value / observed - done) for value in self.totals[name]))

    @property
    def per_prompt(self) -> Estimate:
        """Return how many times the pilot's prompts there are."""
        return exactly(self.prompts[1] / self.prompts[0])


def stage_of(name: str) -> str:
    """Return the stage of an output that is called `stage` or, for a further reward, `stage reward`."""
    return name.partition(" ")[0]


def trained_pairs(pairs: float, dpo: DpoConfig, steps: int | None) -> float:
    """Return how many pairs a training of DPO goes through.

    Args:
        pairs: That there are, those that are held out of the training with them.
        dpo: Its settings.
        steps: Optimizer steps, the last of a pass with what is left of it; None: as many passes as are configured.
    """
    kept = pairs * (1 - dpo.evaluation_fraction)
    passes = dpo.epochs if steps is None else steps / max(1, math.ceil(kept / dpo.batch_size))
    return kept * passes


def ratio(stage: str, phase: str, manifest: Manifest, scale: Scale) -> Estimate:
    """Return how many times as long a phase of a stage will take in the whole run, which keeps what the pilot did."""
    phases, stats = manifest.cost["phases"], manifest.stats
    gold = scale.config.data.labels_completions
    if stage == "sample_completions":
        drawn = phases["sampling prompts"]["units"] / scale.prompts[0]
        return scale.of(TOKENS, done=1.0).times(1 / drawn)
    if stage == "score_completions":
        scored = stats["scored"] / manifest.rows
        return scale.per_prompt.plus(exactly(0.0 if gold else -1.0)).times(1 / scored)
    if stage == "build_pairs" or (gold and stage in ("label_preferences", "judge_preferences", "train_reward_model")):
        return scale.per_prompt
    if stage == "train_dpo":
        return _dpo_ratio(phase, manifest, scale)
    if stage == "evaluate_policy":
        pilot, whole = scale.evaluation_prompts
        shared = 1 / len(manifest.stats["policies"])  # the reference is the same policy in the whole run
        return exactly(whole / pilot - (shared if phase in SHARED_BY_POLICIES else 0.0))
    return exactly(0.0)


def _dpo_ratio(phase: str, manifest: Manifest, scale: Scale) -> Estimate:
    phases = manifest.cost["phases"]
    if phase != TRAINING:
        new = manifest.stats["ref_logps_computed"] / max(1, manifest.stats["completions"])
        return scale.of(IN_PAIRS, done=1.0).times(1 / new) if new else scale.of(IN_PAIRS)
    dpo = scale.config.dpo
    trained = trained_pairs(scale.observed[PAIRS], dpo, phases[TRAINING]["units"])
    return Estimate(*(trained_pairs(pairs, dpo, dpo.max_steps) / trained for pairs in scale.totals[PAIRS]))


def stage_seconds(stage: str, manifest: Manifest, scale: Scale) -> Estimate | None:
    """Return the seconds that a stage will take in the whole run; None where the pilot did not measure it.

    What was not computed in the pilot, since the store had it, has no phases.
    """
    phases = manifest.cost.get("phases", {})
    measured = {
        "sample_completions": "sampling prompts" in phases,
        "score_completions": bool(manifest.stats.get("scored")),
        "train_dpo": TRAINING in phases,
    }
    if not phases or not measured.get(stage, True):
        return None
    setup = max(0.0, manifest.cost["seconds"] - sum(phase["seconds"] for phase in phases.values()))
    found = exactly(setup).times(1.0, *SETUP_BOUNDS)
    for name, phase in phases.items():
        work = ratio(stage, name, manifest, scale).times(phase["seconds"])
        found = found.plus(work.times(1.0, *PHASE_BOUNDS))
    return Estimate(found.predicted, max(0.0, found.low - SLACK), found.high + SLACK)


def dpo_tokens(artifact: Artifact) -> float | None:
    """Return the tokens that a training was fed; None where it has not logged them."""
    log = read_file(artifact, "training_log.parquet", "training_log")
    fed = [row["value"] for row in log.to_pylist() if row["metric"] == "num_tokens"]
    return max(fed, default=None)


def stored_bytes(store: Store, artifacts: Mapping[str, Artifact]) -> dict[str, tuple[int, int]]:
    """Return the bytes of each stage's own files and of the parts of tables that it names, each folder once."""
    seen: set[str] = set()
    found = {}
    for name, artifact in artifacts.items():
        if not artifact.uri.startswith(f"{store.uri}/") or artifact.uri in seen:
            continue
        seen.add(artifact.uri)
        manifest = read_manifest(artifact.uri)
        parts = [folder for folder in (*manifest.parts, *manifest.keeps) if folder not in seen]
        seen.update(parts)
        others = in_parallel(lambda folder: _size(read_manifest(f"{store.uri}/{folder}")), parts, AT_ONCE)
        found[name] = (_size(manifest), sum(others))
    return found


def whole_bytes(sizes: Mapping[str, tuple[int, int]], scale: Scale) -> Estimate:
    """Return the bytes that the whole run will have in the store, from those of the pilot."""
    pilot, whole = scale.evaluation_prompts
    found = exactly(0.0)
    for name, (own, parts) in sizes.items():
        stage = stage_of(name)
        if stage in ("sample_completions", "score_completions"):
            grown = scale.of(TOKENS).times(own + parts)
        elif stage == "build_pairs":
            grown = scale.of(PAIRS).times(own)
        elif stage == "train_dpo":
            grown = exactly(own).plus(scale.of(IN_PAIRS).times(parts))
        elif stage == "evaluate_policy":
            grown = exactly((own + parts) * whole / pilot)
        elif stage in ("label_preferences", "judge_preferences"):
            grown = scale.per_prompt.times(own + parts)
        else:
            found = found.plus(exactly(own + parts))
            continue
        found = found.plus(grown.times(1.0, *BYTES_BOUNDS))
    return found


def _size(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files.values())
