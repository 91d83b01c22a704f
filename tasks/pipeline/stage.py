"""A stage: a Prefect task around a function of artifacts and settings, keyed by what decides its output.

The store alone says what there is: a stage whose folder is complete is not computed again, and one whose folder is
missing or damaged is. Prefect remembers nothing. A stage computes here, or on a pool of GPU workers.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack

from prefect import Task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import task_run
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from tasks.config.errors import ConfigurationError
from tasks.pipeline.dispatch import DeploymentFailedError, Order, check_ended_well, endings, start, under_way
from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.options import Options, Work, check_options
from tasks.pipeline.pages import stage_page, stats_lines
from tasks.pipeline.shards import compute_in_shards
from tasks.pipeline.site import Site
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft, plain, provenance_of

T = TypeVar("T")
P = ParamSpec("P")
CRASHES, CRASH_SECONDS = 10, 10.0
"""How often a stage is asked of a worker again where its run crashed or was preempted, and seconds in between."""
Body = Callable[Concatenate[Draft, P], Artifact]
Arguments = dict[str, Any]
"""The values of a body's parameters, the draft apart, by name and in order."""


class Stage(Generic[P]):
    """A body that is called with a site in place of its draft: looked up in the store, else computed and committed.

    The key comes from the arguments: artifacts count by digest, sections by the fields that decide the output. What
    is at its default does not count.
    """

    def __init__(self, body: Body[P], version: int, options: Options) -> None:
        """Wrap a body; see `stage`.

        Raises:
            TypeError: See `check_options`.
        """
        functools.update_wrapper(self, body)
        self.body, self.version, self.options = body, version, options
        self.name = body.__name__
        self.signature = inspect.signature(body)
        parameters = self.signature.parameters.values()
        self.defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        check_options(body, options)
        self.task: Task[..., Any] = Task(
            self._run,
            name=self.name,
            version=str(version),
            description=inspect.getdoc(body),
            retries=options.get("retries", 0),
            retry_delay_seconds=exponential_backoff(5),
            retry_condition_fn=should_retry,
            # The store alone says what there is. A result of Prefect's names its own serializer, which may be pickle.
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    def __call__(self, site: Site, *args: P.args, **kwargs: P.kwargs) -> Artifact:
        """Return the stage's output."""
        arguments = self._bind(*args, **kwargs)
        if "given" in self.options and (given := _call(self.options["given"], arguments)) is not None:
            return self._seen(site, given)
        draft = self._draft(site, arguments)
        if (plan := PLAN.get()) is not None:
            return plan.visit(draft, self._preview, arguments)
        if site.record is not None:
            site.record.note(draft.folder)
        found = draft.find()
        if found is None and site.record is not None:
            self._count(site, draft, arguments)
        run = self.task
        if self._is_deployed(site, arguments):
            run = run.with_options(retries=CRASHES, retry_delay_seconds=CRASH_SECONDS)
        made: Any = run(draft, site, arguments, found)
        if isinstance(made, State):  # the store had it, before or since an attempt that failed
            return self._seen(site, found or made.result())
        site.made.add(made.uri)
        return self._seen(site, made)

    def draft(self, site: Site, *args: P.args, **kwargs: P.kwargs) -> Draft:
        """Return where the stage's output is, or will be."""
        return self._draft(site, self._bind(*args, **kwargs))

    def order(self, site: Site, *args: P.args, **kwargs: P.kwargs) -> Order:
        """Return what the stage's deployment is asked for."""
        return self._order(site, self._bind(*args, **kwargs))

    def _count(self, site: Site, draft: Draft, arguments: Arguments) -> None:
        """Note how much is missing: of a stage that is called for several tables, of all of them."""
        if "work" in self.options or self.name not in site.computed:
            missing = self._work(draft, arguments).missing()
            site.computed[self.name] = site.computed.get(self.name, 0) + missing

    def _is_deployed(self, site: Site, arguments: Arguments) -> bool:
        """Tell whether a deployment computes the output."""
        is_here = "here" in self.options and _call(self.options["here"], arguments)
        return self.name in site.compute.deployments() and not is_here

    def _seen(self, site: Site, artifact: Artifact) -> Artifact:
        if site.watcher is not None and PLAN.get() is None:
            site.watcher.saw(self.name, artifact)
        return artifact

    def _run(
        self, draft: Draft, site: Site, arguments: Arguments, found: Artifact | None
    ) -> Artifact | State[Artifact]:
        """Run as a Prefect task; `found` is the output where it was there before."""
        if found is None and task_run.run_count > 1:  # somebody may have computed it since the first attempt
            found = draft.find()
        artifact = found or self._compute(draft, site, arguments)
        page = stage_page(
            draft.provenance, artifact, _call(self.options.get("page", stats_lines), {"artifact": artifact})
        )
        create_markdown_artifact(page, key=self.name.replace("_", "-"), description=f"What {self.name} did")
        return artifact if found is None else Completed(name="Cached", data=artifact)

    def _compute(self, draft: Draft, site: Site, arguments: Arguments) -> Artifact:
        """Compute and commit the output: on the stage's deployment where there is one, else here."""
        if not self._is_deployed(site, arguments):
            return self._body(draft, arguments)
        while True:
            work = self._work(draft, arguments)
            if not work.missing():
                return self._body(draft, arguments)
            if "split" in self.options and site.compute.shards > 1:
                compute_in_shards(work.lock, lambda: self._shards(site, draft, arguments))
            else:
                self._dispatch(draft, self._order(site, arguments))
            if (artifact := draft.find()) is not None:
                return artifact

    def _dispatch(self, draft: Draft, order: Order) -> None:
        """Have the stage's deployment compute the output, or wait for the runs that work on it already."""
        for run in endings(under_way(order.lock) or [start(order)]):
            if f"key:{order.key}" in run.tags:
                check_ended_well(run, committed=draft.find() is not None)

    def _shards(self, site: Site, draft: Draft, arguments: Arguments) -> list[Order]:
        """Return what each of several workers is asked for; nothing where other runs have computed all of it."""
        shards = _call(self.options["split"], arguments, out=draft, shards=site.compute.shards)
        if not shards and (missing := self._work(draft, arguments).missing()):
            raise DeploymentFailedError(f"{self.name}: `split` shares out nothing, but {missing} are missing")
        return [self._order(site, arguments | own) for own in shards]

    def _order(self, site: Site, arguments: Arguments) -> Order:
        draft = self._draft(site, arguments)
        parameters = {name: plain(value) for name, value in arguments.items()}
        deployment, lock = site.compute.deployments()[self.name], self._work(draft, arguments).lock
        return Order(deployment, {"store": site.store.uri, **parameters}, draft.provenance.key, lock)

    def _work(self, draft: Draft, arguments: Arguments) -> Work:
        if "work" not in self.options:
            return Work(draft.provenance.key, lambda: 1)
        return _call(self.options["work"], arguments, out=draft)

    def _preview(self, draft: Draft, arguments: Arguments) -> tuple[Artifact, dict[str, Any]]:
        if "preview" not in self.options:
            return self._body(draft, arguments), {}
        return _call(self.options["preview"], arguments, out=draft)

    def _body(self, draft: Draft, arguments: Arguments) -> Artifact:
        body: Callable[..., Artifact] = self.body
        with draft.measured():
            return body(draft, *arguments.values())

    def _bind(self, *args: Any, **kwargs: Any) -> Arguments:
        """Return the value of each of the body's parameters but the draft, in their order."""
        bound = self.signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])

    def _draft(self, site: Site, arguments: Arguments) -> Draft:
        counted = arguments | dict.fromkeys(self.options.get("dropped", ()), NOTHING)
        for name, other in self.options.get("same", {}).items():
            if arguments[name].digest == arguments[other].digest:
                del counted[name]
        provenance = provenance_of(self.name, self.version, counted, self.defaults, self.options.get("reads"))
        return Draft(site.store, provenance)


def stage(version: int, **options: Unpack[Options]) -> Callable[[Body[P]], Stage[P]]:
    """Make a stage of a function from artifacts and settings to an artifact.

    Args:
        version: Bump it when the same arguments would give another output.
        **options: See `Options`.
    """
    return lambda body: Stage(body, version, options)


def _call(function: Callable[..., T], arguments: Arguments, **more: Any) -> T:
    """Call a function with the arguments that it names."""
    known = arguments | more | ({"store": more["out"].store} if "out" in more else {})
    return function(*(known[name] for name in inspect.signature(function).parameters))


def should_retry(task: Any, run: Any, state: Any) -> bool:
    """Return whether to retry: not after errors that depend on the input alone."""
    return not isinstance(state.result(raise_on_failure=False), ConfigurationError | DeploymentFailedError)
