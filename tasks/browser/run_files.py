"""What a run has in the store, told from its record and its stages' manifests: nothing else is listed or read."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from tasks.browser.gaps import Rule
from tasks.config.errors import ConfigurationError
from tasks.inspection.browse import MADE_BY, entry_of_run
from tasks.inspection.catalog import Catalog, Entry
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import Artifact, DamagedArtifactError, is_safe
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.manifests import read_manifest
from tasks.store.runs import RUNS, Run

NAMES = (*MADE_BY, "evaluation")
EVALUATION, SCORED = "evaluate_policy", "score_completions"


class RunFiles(NamedTuple):
    """A run, and the outputs of its stages that are in the store."""

    store: Store
    run: Run
    catalog: Catalog

    def entry(self, name: str) -> Entry | None:
        """Return the output of a name in `NAMES`, or None where the run has not made it, or it is gone."""
        if name == "evaluation":
            made = [self.catalog.entries[folder] for folder in self._folders() if folder.startswith(f"{EVALUATION}/")]
            return next((entry for entry in reversed(made) if entry.manifest), None)
        return entry_of_run(self.catalog, self.run, name)

    def artifact(self, name: str) -> Artifact | None:
        """Return the reference to an output."""
        entry = self.entry(name)
        return entry.artifact(self.store) if entry else None

    def stats(self, name: str) -> dict[str, Any]:
        """Return what a stage recorded; nothing where it has no output."""
        entry = self.entry(name)
        return entry.manifest.stats if entry and entry.manifest else {}

    def rows(self, name: str) -> int | None:
        """Return how many rows an output has; None where there is none."""
        entry = self.entry(name)
        return entry.manifest.rows if entry and entry.manifest else None

    def settings(self) -> dict[str, Any]:
        """Return the settings of all stages: section -> field -> value."""
        entries = [self.catalog.entries[folder] for folder in self._folders()]
        configs = [entry.manifest.provenance.config for entry in entries if entry.manifest]
        return {section: values for config in configs for section, values in config.items()}

    def pairs_config(self) -> PairsConfig:
        """Return how pairs are selected: the defaults where the run has no pairs, or settings that are not known."""
        entry = self.entry("pairs")
        config = entry.manifest.provenance.config if entry and entry.manifest else {}
        try:
            return PairsConfig(**config.get("pairs", {}))
        except ValidationError:
            return PairsConfig()

    def rule(self) -> Rule:
        """Return what the selection has beside tau and eta."""
        config = self.pairs_config()
        return Rule(config.truncated, config.max_pairs_per_prompt, config.rip, config.pass_rate)

    def held_out(self) -> Artifact | None:
        """Return the prompts of the evaluation."""
        entry = self.entry("evaluation")
        digest = entry.manifest.provenance.inputs.get("prompts", "") if entry and entry.manifest else ""
        found = self.catalog.with_digest(digest)
        return found[-1].artifact(self.store) if found else None

    def model(self, name: str, role: str) -> str:
        """Return the folder of the model behind an output, or its digest where the run has no such folder."""
        entry = self.entry(name)
        digest = entry.manifest.provenance.inputs.get(role, "") if entry and entry.manifest else ""
        found = self.catalog.with_digest(digest)
        return found[-1].folder if found else digest

    def origins(self) -> list[tuple[str, str]]:
        """Return what a prompt's rows were made by: what it is, and the folder or digest."""
        found = [(name, entry.folder) for name in MADE_BY if (entry := self.entry(name))]
        found += [
            ("policy", self.model("completions", "policy")),
            ("reward model", self.model("rewards", "reward_model")),
        ]
        return [(name, folder) for name, folder in found if folder]

    def content(self) -> tuple[str, ...]:
        """Return the digests that tell whether the run's tables are still those that were read."""
        return tuple(f"{entry.folder} {entry.digest}" if (entry := self.entry(name)) else "" for name in NAMES)

    def _folders(self) -> Iterator[str]:
        """Yield the folders of the run's stages in order, then what it returned beside them."""
        yield from (folder for folder in self.catalog.entries)


def read_run(store: Store, run_id: str) -> RunFiles:
    """Read a run's record and the manifests of its stages.

    Raises:
        ConfigurationError: There is no such run, or its record is damaged.
        StoreError: The store cannot be read.
    """
    missing = f"the store has no run {run_id[:80]!r}, or its record is damaged"
    if not is_safe(run_id):
        raise ConfigurationError(missing)
    try:
        run = Run.model_validate(read_manifest(f"{store.uri}/{RUNS}/{run_id}").stats)
    except (DamagedArtifactError, ValidationError) as error:
        raise ConfigurationError(missing) from error
    return files_of(store, run)


def files_of(store: Store, run: Run) -> RunFiles:
    """Read the manifests of a run's stages, many at a time."""
    folders = dict.fromkeys([*run.stages, *run.artifacts.values()])
    entries = in_parallel(lambda folder: _entry(store, folder), folders, AT_ONCE)
    return RunFiles(store, run, Catalog({entry.folder: entry for entry in entries}))


def other_rewards(files: RunFiles) -> dict[str, Artifact]:
    """Return what other reward models gave the run's completions, in this run or another: model -> rewards."""
    own, completions = files.entry("rewards"), files.entry("completions")
    if completions is None:
        return {}
    folders = [f"{SCORED}/{key}" for key in files.store.list(SCORED)]
    found = {}
    for entry in in_parallel(lambda folder: _entry(files.store, folder), folders, AT_ONCE):
        inputs = entry.manifest.provenance.inputs if entry.manifest else {}
        if inputs.get("completions") == completions.digest and (own is None or entry.digest != own.digest):
            models = files.catalog.with_digest(inputs.get("reward_model", ""))
            found[models[-1].folder if models else inputs.get("reward_model", entry.folder)] = entry.artifact(
                files.store
            )
    return found


def _entry(store: Store, folder: str) -> Entry:
    try:
        return Entry(folder, "stage", 0, read_manifest(f"{store.uri}/{folder}"))
    except DamagedArtifactError as error:
        return Entry(folder, "stage", 0, None, str(error))
