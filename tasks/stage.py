"""A stage: a Prefect task around a function of artifacts and settings, keyed by what decides its output.

The store is the truth. A stage whose folder is complete is not computed again, whatever Prefect remembers, and one
whose folder is missing or damaged is, whatever Prefect remembers.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.filesystems import RemoteFileSystem
from prefect.tasks import exponential_backoff

from tasks.artifacts import Artifact, Content, Manifest, Provenance
from tasks.config import Section
from tasks.report import stage_page
from tasks.storage import S3_OPTIONS, Store

P = ParamSpec("P")
PENDING = "pending"
"""Kind of an artifact that a dry run foresees: it has estimated rows and no digest yet."""


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text on any machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def stage_key(stage: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 that names a stage's output.

    Args:
        stage: The stage's name.
        version: Bumped when the same inputs would give another output.
        config: The settings that decide the output.
        inputs: Name -> digest of each input.
    """
    parts = {"stage": stage, "version": version, "config": dict(config), "inputs": dict(inputs)}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


class Draft:
    """A stage's output on its way: where it will be committed and what it is made from."""

    def __init__(self, store: Store, provenance: Provenance, writes_to: Store | None = None) -> None:
        """Name the output; nothing is written yet. `writes_to` is where it goes in place of the store it reads."""
        self.store = store
        self.provenance = provenance
        self.writes_to = writes_to or store

    @property
    def folder(self) -> str:
        """Return the folder of the output, relative to the store."""
        return f"{self.provenance.stage}/{self.provenance.key}"

    def find(self) -> Artifact | None:
        """Return the output where it is already there, complete and undamaged."""
        return self.store.find(self.folder)

    def commit(self, kind: str, files: Mapping[str, Content], digest: str, **facts: Any) -> Artifact:
        """Write the output's files and manifest; `facts` are the manifest's rows, stats and parts."""
        manifest = Manifest(kind=kind, digest=digest, provenance=self.provenance, **facts)
        return self.writes_to.commit(self.folder, files, manifest)


class Stage(Protocol[P]):
    """What `stage` makes of a body: called with a store in place of the draft."""

    body: Callable[..., Artifact]
    __name__: str

    def __call__(self, store: Store, *args: P.args, **kwargs: P.kwargs) -> Artifact:
        """Return the stage's output: from the store, or computed and committed."""


@dataclass
class Plan:
    """What a dry run finds: one line a stage, in order."""

    folder: Path
    """Temporary folder for what previews lay out."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    scratch: Store = field(default_factory=lambda: Store("memory://plan"))

    def visit(self, draft: Draft, preview: "Preview", bound: inspect.BoundArguments, pending: list[str]) -> Artifact:
        """Note whether a stage would be reused or computed, and what it would cost, without computing it."""
        found = None if pending else draft.find()
        foreseen = Draft(draft.store, draft.provenance, writes_to=self.scratch)
        artifact, cost = (found, {}) if found else preview(foreseen, *bound.args[1:], **bound.kwargs)
        key = f"known after {', '.join(pending)}" if pending else draft.provenance.key
        action = "reuse" if found is not None else "compute"
        self.steps.append({"stage": draft.provenance.stage, "key": key, "action": action, **cost})
        return artifact


Preview = Callable[..., tuple[Artifact, dict[str, Any]]]
PLAN: ContextVar[Plan | None] = ContextVar("plan", default=None)
"""Set during a dry run: stages are then looked up and estimated instead of run."""


def pending(rows: int, stage: str, **stats: Any) -> Artifact:
    """Return a stand-in for an output that a dry run cannot know yet."""
    return Artifact(kind=PENDING, uri=stage, digest="", rows=rows, stats=stats)


def stage(
    *,
    version: int,
    preview: Preview | None = None,
    retries: int = 0,
    ready: Callable[..., Artifact | None] | None = None,
) -> Callable[[Callable[Concatenate[Draft, P], Artifact]], Stage[P]]:
    """Make a Prefect task of a function from artifacts and settings to an artifact.

    The task's key comes from the arguments: artifacts count by digest, sections by the fields that decide the output.

    Args:
        version: Bump it when the same arguments would give another output.
        preview: Called in place of the body in a dry run; returns the expected artifact and what it would cost. None
            for a stage that reads data and loads no model: a dry run runs it into memory.
        ready: Called with the arguments; an artifact that it returns takes the place of the stage's output.
        retries: How often Prefect repeats the task after a failure that is not a ValueError. For I/O and GPU work.
    """

    def decorate(body: Callable[Concatenate[Draft, P], Artifact]) -> Stage[P]:
        foresee: Preview = preview or (lambda draft, *args, **kwargs: (body(draft, *args, **kwargs), {}))

        @task(
            name=body.__name__,
            version=str(version),
            description=inspect.getdoc(body),
            retries=retries,
            retry_delay_seconds=exponential_backoff(5),
            retry_condition_fn=_may_pass_next_time,
            cache_key_fn=lambda _, parameters: parameters["draft"].provenance.key,
            persist_result=True,
            result_serializer="json",
        )
        def run(draft: Draft, *args: Any, **kwargs: Any) -> Artifact:
            artifact = draft.find() or body(draft, *args, **kwargs)
            page = stage_page(draft.provenance, artifact)
            create_markdown_artifact(page, key=body.__name__.replace("_", "-"), description=f"What {body.__name__} did")
            return artifact

        signature = inspect.signature(body)

        @functools.wraps(body)
        def call(store: Store, *args: P.args, **kwargs: P.kwargs) -> Artifact:
            bound = signature.bind(None, *args, **kwargs)
            bound.apply_defaults()
            if ready is not None and (given := ready(*bound.args[1:], **bound.kwargs)) is not None:
                return given
            draft = Draft(store, _provenance(body.__name__, version, dict(bound.arguments)))
            waiting = [a.uri for a in bound.arguments.values() if isinstance(a, Artifact) and a.kind == PENDING]
            if (plan := PLAN.get()) is not None:
                return plan.visit(draft, foresee, bound, waiting)
            found = draft.find()
            task_run = run.with_options(refresh_cache=found is None, result_storage=_result_storage(store))
            artifact = task_run(draft, *bound.args[1:], **bound.kwargs)
            return found or artifact

        call.body = body  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def log(message: str) -> None:
    """Log to the Prefect run, or print outside of one; a dry run says nothing."""
    if PLAN.get() is not None:
        return
    try:
        get_run_logger().info(message)
    except MissingContextError:
        print(message, flush=True)


def in_task() -> bool:
    """Tell whether a Prefect task is running, so that its artifacts have somewhere to go."""
    return TaskRunContext.get() is not None


def _provenance(name: str, version: int, arguments: dict[str, Any]) -> Provenance:
    inputs = {key: value.digest for key, value in arguments.items() if isinstance(value, Artifact)}
    rest = {key: value for key, value in arguments.items() if not isinstance(value, Artifact) and value is not None}
    decides = {key: value.key_fields() if isinstance(value, Section) else value for key, value in rest.items()}
    config = {
        key: value.model_dump(mode="json") if isinstance(value, Section) else value for key, value in rest.items()
    }
    key = stage_key(name, version, decides, inputs)
    return Provenance(stage=name, version=version, key=key, inputs=inputs, config=config)


def _may_pass_next_time(task_: Any, run: Any, state: Any) -> bool:
    """Say no to a ValueError: the same input would fail the same way."""
    return not isinstance(state.result(raise_on_failure=False), ValueError)


@functools.cache
def _result_storage(store: Store) -> Path | RemoteFileSystem:
    """Keep Prefect's cached references in the store itself, where any machine finds them."""
    if store.uri.startswith("file://"):
        return Path(store.root) / "results"
    block = RemoteFileSystem(basepath=f"{store.uri}/results", settings=S3_OPTIONS)
    block.save(f"rs-dpo-{hashlib.sha256(store.uri.encode()).hexdigest()[:12]}", overwrite=True)
    return block
