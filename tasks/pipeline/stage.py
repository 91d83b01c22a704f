"""A stage: a Prefect task around a function of artifacts and settings, keyed by what decides its output.

The store alone says what there is: a stage whose folder is complete is not computed again, and one whose folder is
missing or damaged is. Prefect remembers nothing. A stage computes here, or on a pool of GPU workers.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec

from prefect import Task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from tasks.config.errors import ConfigurationError
from tasks.pipeline.dispatch import DeploymentFailedError, Order, check_ended_well, endings, start, under_way
from tasks.pipeline.dry_run import PLAN, Preview
from tasks.pipeline.pages import stage_page
from tasks.pipeline.site import Site
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft, plain, provenance_of

P = ParamSpec("P")
CRASHES, CRASH_SECONDS = 10, 10.0
"""How often a stage is asked of a worker again where its run crashed or was preempted, and seconds in between."""
Body = Callable[Concatenate[Draft, P], Artifact]


class Work(NamedTuple):
    """What there is to compute for a stage's output."""

    lock: str
    """Names what is worked on: only one run of a deployment at a time works on it."""
    left: Callable[[], int] = lambda: 1
    """Returns how much is missing; 0: the store has it all, and what remains is to name it."""


class Stage(Generic[P]):
    """A body that is called with a site in place of its draft: looked up in the store, else computed and committed.

    The key comes from the arguments: artifacts count by digest, sections by the fields that decide the output. What
    is at its default does not count.
    """

    def __init__(
        self,
        body: Body[P],
        version: int,
        preview: Preview | None = None,
        ready: Callable[..., Artifact | None] | None = None,
        work: Callable[..., Work] | None = None,
        retries: int = 0,
        reads: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Wrap a body; see `stage`."""
        self.reads = reads or {}
        functools.update_wrapper(self, body)
        self.name, self.version, self.ready, self.work = body.__name__, version, ready, work
        self.body: Callable[..., Artifact] = body
        self.preview: Preview = preview or (lambda draft, *args, **kwargs: (body(draft, *args, **kwargs), {}))
        self.signature = inspect.signature(body)
        parameters = self.signature.parameters.values()
        self.defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        self.task: Task[..., Any] = Task(
            self._run,
            name=self.name,
            version=str(version),
            description=inspect.getdoc(body),
            retries=retries,
            retry_delay_seconds=exponential_backoff(5),
            retry_condition_fn=may_pass_next_time,
            # The store alone says what there is. A result of Prefect's names its own serializer, which may be pickle.
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    def __call__(self, site: Site, *args: P.args, **kwargs: P.kwargs) -> Artifact:
        """Return the stage's output."""
        bound = self._bind(*args, **kwargs)
        if self.ready is not None and (given := self.ready(*bound.args[1:])) is not None:
            return given
        draft = self._draft(site, bound)
        if (plan := PLAN.get()) is not None:
            return plan.visit(draft, self.preview, bound)
        if site.record is not None:
            site.record.note(draft.folder)
        found = draft.find()
        if found is None and site.record is not None and self.name not in site.computed:
            site.computed[self.name] = self._work(draft, bound).left()
        run = self.task
        if self.name in site.compute.deployments():
            run = run.with_options(retries=CRASHES, retry_delay_seconds=CRASH_SECONDS)
        artifact: Any = run(draft, site, bound)
        return found or artifact

    def find(self, site: Site, *args: P.args, **kwargs: P.kwargs) -> Artifact | None:
        """Return the stage's output where the store has it."""
        return self.draft(site, *args, **kwargs).find()

    def draft(self, site: Site, *args: P.args, **kwargs: P.kwargs) -> Draft:
        """Return where the stage's output is, or will be."""
        return self._draft(site, self._bind(*args, **kwargs))

    def order(self, site: Site, *args: P.args, **kwargs: P.kwargs) -> Order:
        """Return what the stage's deployment needs to compute the output."""
        return self._order(site, self._bind(*args, **kwargs))

    def _order(self, site: Site, bound: inspect.BoundArguments) -> Order:
        draft = self._draft(site, bound)
        parameters = {name: plain(value) for name, value in list(bound.arguments.items())[1:]}
        lock = self._work(draft, bound).lock
        place = site.compute.deployments()[self.name]
        return Order(place, {"store": site.store.uri, **parameters}, draft.provenance.key, lock)

    def _run(self, draft: Draft, site: Site, bound: inspect.BoundArguments) -> Artifact | State[Artifact]:
        """Run as a Prefect task."""
        found = draft.find()
        artifact = found or self._compute(draft, site, bound)
        page = stage_page(draft.provenance, artifact)
        create_markdown_artifact(page, key=self.name.replace("_", "-"), description=f"What {self.name} did")
        return artifact if found is None else Completed(name="Cached", data=artifact)

    def _compute(self, draft: Draft, site: Site, bound: inspect.BoundArguments) -> Artifact:
        """Compute and commit the output: on the stage's deployment where there is one, else here."""
        if self.name not in site.compute.deployments():
            return self.body(draft, *bound.args[1:])
        while (artifact := draft.find()) is None:
            if not self._work(draft, bound).left():
                return self.body(draft, *bound.args[1:])
            order = self._order(site, bound)
            for run in endings(under_way(order.lock) or [start(order)]):
                if f"key:{order.key}" in run.tags:
                    check_ended_well(run, committed=draft.find() is not None)
        return artifact

    def _work(self, draft: Draft, bound: inspect.BoundArguments) -> Work:
        return Work(draft.provenance.key) if self.work is None else self.work(draft.store, *bound.args[1:])

    def _bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        bound = self.signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return bound

    def _draft(self, site: Site, bound: inspect.BoundArguments) -> Draft:
        arguments = dict(list(bound.arguments.items())[1:])
        return Draft(site.store, provenance_of(self.name, self.version, arguments, self.defaults, self.reads))


def stage(
    *,
    version: int,
    preview: Preview | None = None,
    ready: Callable[..., Artifact | None] | None = None,
    work: Callable[..., Work] | None = None,
    retries: int = 0,
    reads: Mapping[str, Collection[str]] | None = None,
) -> Callable[[Body[P]], Stage[P]]:
    """Make a stage of a function from artifacts and settings to an artifact.

    Args:
        version: Bump it when the same arguments would give another output.
        preview: Called in place of the body in a dry run; returns the expected artifact and what it would cost. None
            for a stage that reads data and loads no model: a dry run runs it into memory.
        ready: Called with the arguments; an artifact that it returns takes the place of the stage's output.
        work: Called with the store and the arguments, for a stage that fills a table which it shares with others. None:
            the stage computes its output alone and as a whole.
        retries: How often Prefect repeats the task after a failure that is no ConfigurationError. For I/O and GPU work.
        reads: Section -> the fields of it that the body reads, of a section that it does not read as a whole. The
            others are not in the key.
    """
    return lambda body: Stage(body, version, preview, ready, work, retries, reads)


def may_pass_next_time(task: Any, run: Any, state: Any) -> bool:
    """Return whether to retry: not after errors that depend on the input alone."""
    return not isinstance(state.result(raise_on_failure=False), ConfigurationError | DeploymentFailedError)
