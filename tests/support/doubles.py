"""A stage that remembers every call of its body."""

from typing import Annotated, Any

from tasks.config.sections import NOT_IN_KEY, Section
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import Draft
from tasks.store.folders import Store

SOURCE = Artifact(kind="number", uri="file:///anywhere", digest="5" * 64, rows=5)


class Inner(Section):
    """A part of the settings."""

    depth: int = 1
    threads: Annotated[int, NOT_IN_KEY] = 1


class Settings(Section):
    """Settings of the stage under test."""

    factor: int = 2
    batch_size: Annotated[int, NOT_IN_KEY] = 8
    inner: Inner = Inner()
    other: Inner | None = None


class Double:
    """A stage that multiplies its source's rows, and remembers every call of its body."""

    def __init__(self, version: int = 1, **options: Any) -> None:
        self.calls: list[Settings] = []
        self.errors: list[Exception] = []

        @stage(version=version, **options)
        def double(out: Draft, source: Artifact, settings: Settings) -> Artifact:
            """Double a number."""
            self.calls.append(settings)
            if self.errors:
                raise self.errors.pop(0)
            content = str(source.rows * settings.factor).encode()
            return out.commit("number", {"number.txt": content}, sha256_of(content), rows=source.rows)

        self.stage = double

    def __call__(self, store: Store, source: Artifact = SOURCE, **settings: Any) -> Artifact:
        return self.stage(Site(store), source, Settings(**settings))
