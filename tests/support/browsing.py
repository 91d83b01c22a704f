"""A store with runs, and a client of its pages."""

from typing import Any, NamedTuple

from starlette.testclient import TestClient

from tasks.browser.app import create_app
from tasks.browser.shelf import Shelf
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.runs import Run

HOST = "http://127.0.0.1"


class Browsed(NamedTuple):
    """A store with runs, and what looks at it."""

    store: Store
    runs: list[Run]
    made: list[dict[str, Artifact]]
    client: TestClient

    @property
    def shelf(self) -> Shelf:
        return self.client.app.state.shelf  # type: ignore[attr-defined]

    def index(self, number: int = 0) -> Any:
        opened = self.shelf.open(self.runs[number].id)
        assert opened.is_ready(60)
        return opened.index

    def get(self, address: str, **query: Any) -> Any:
        """Ask for a page of the first run once that has been read."""
        self.index()
        return self.client.get(f"/runs/{self.runs[0].id}{address}", params=query or None)


def browse(store: Store, written: list[tuple[Run, dict[str, Artifact]]]) -> Browsed:
    client = TestClient(create_app(store), base_url=HOST, raise_server_exceptions=False)
    return Browsed(store, [run for run, _ in written], [made for _, made in written], client)
