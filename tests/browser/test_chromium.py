"""The pages in headless Chromium: clicked and typed in as a person would."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from browsed_store import Size, write_run
from playwright.sync_api import Browser, Page, expect, sync_playwright
from runs import ROOT

from tasks.selection.strategies import PairsConfig
from tasks.store.folders import Store
from tasks.store.runs import Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
expect.set_options(timeout=20_000)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: install it (apt install chromium)"),
]
HOSTILE = [
    "<script>document.title = 'run by a model'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "\u202eabc",
]


class Site(NamedTuple):
    url: str
    store: Store
    runs: list[Run]
    server: subprocess.Popen


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two runs in a store, one of them with hostile completions, behind the command itself."""
    with served(tmp_path_factory.mktemp("site")) as own:
        yield own


class served:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Site:
        store = Store(str(self.folder / "store"))
        texts = lambda number, seed: [f"{HOSTILE[i % 3]} answer {i}" for i in range(number)]  # noqa: E731
        first, _ = write_run(store, Size(60, k=6), texts=texts)
        second, _ = write_run(store, Size(40, k=6), "second", pairs=PairsConfig(tau=0.5))
        command = [sys.executable, "-m", "flows.browse", str(self.folder / "store"), "--port", "0"]
        self.server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        found = re.search(r"http://\S+?(?=/ )", self.server.stdout.readline())
        return Site(found[0], store, [first, second], self.server)

    def __exit__(self, *error: object) -> None:
        self.server.terminate()
        self.server.wait(20)
        self.server.stdout.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that must report nothing: no error of a script, none of the policy, no request to elsewhere."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    page, complaints = context.new_page(), []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if "://127.0.0.1:" in request.url else complaints.append(request.url))
    yield page
    context.close()
    assert not complaints, "\n".join(complaints)


def open_run(page: Page, site: Site, number: int) -> None:
    """From the first page, by a click on the run."""
    page.goto(site.url)
    page.locator(f'a[href="/runs/{site.runs[number].id}"]').click()
    expect(page.locator("#list")).to_be_visible()


def test_a_person_filters_and_opens_a_prompt(page, site):
    open_run(page, site, 1)
    expect(page.locator("#list")).to_contain_text("40 of 40 prompts")
    page.get_by_label("text").press_sequentially("question 17", delay=20)
    expect(page.locator("#list")).to_contain_text("1 of 40 prompts")
    assert "text=question+17" in page.url
    page.get_by_label("text").fill("")
    expect(page.locator("#list")).to_contain_text("40 of 40 prompts")
    page.get_by_label("monitor").select_option("no pair")
    page.get_by_label("order").select_option("widest gap")
    page.get_by_label("order").press("Tab")
    expect(page).to_have_url(re.compile("flag=no\\+pair.*order=widest\\+gap"))
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("#list")).to_contain_text("40 of 40 prompts")
    page.locator("#list td.prompt a").nth(1).click()
    expect(page.locator("li[data-id]")).to_have_count(6)
    page.get_by_role("link", name="Next").click()
    page.get_by_role("link", name="Previous").click()
    page.get_by_role("link", name="List").click()
    expect(page.locator("#list")).to_contain_text("40 of 40 prompts")


def test_sliders_change_the_count_at_once(page, site):
    open_run(page, site, 0)
    kept, eta = page.locator("#pairs-kept"), page.get_by_label("eta, slider")
    before = int(kept.inner_text().replace(",", ""))
    box = eta.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.72, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    expect(kept).not_to_have_text(f"{before:,}")
    more = int(kept.inner_text().replace(",", ""))
    assert more > before
    page.get_by_label("tau, slider").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(kept).not_to_have_text(f"{more:,}")
    page.locator("#tau").fill("1.0")
    page.locator("#eta").fill("0.85")
    expect(kept).to_have_text(f"{before:,}")


def test_a_value_out_of_bounds_is_told_and_taken_back(chromium, site):
    page = chromium.new_page()
    page.goto(f"{site.url}/runs/{site.runs[1].id}")
    page.locator("#eta").fill("0.2")
    expect(page.locator("#notice")).to_contain_text("must be at least 0.5")
    page.locator("#eta").fill("0.9")
    expect(page.locator("#notice")).to_be_empty()
    page.close()


def test_lines_join_the_pairs_and_can_be_clicked(page, site):
    open_run(page, site, 1)
    page.get_by_label("order").select_option("most pairs")
    expect(page).to_have_url(re.compile("most\\+pairs"))
    page.locator("#list td.prompt a").first.click()
    pairs = page.locator(".pairs a")
    expect(page.locator("svg.lines path.hit")).to_have_count(pairs.count())
    assert pairs.count() > 2
    asked = pairs.last.get_attribute("id").removeprefix("pair-")
    pairs.last.click()
    expect(page.locator("#pair")).to_have_attribute("data-pair", asked)
    expect(page.locator("svg.lines path.current")).to_have_count(1)
    other = pairs.first.get_attribute("id").removeprefix("pair-")
    page.locator(f'path.hit[data-pair="{other}"]').dispatch_event("click", {"bubbles": True})
    expect(page.locator("#pair")).to_have_attribute("data-pair", other)


def test_no_text_of_a_model_runs(page, site):
    open_run(page, site, 0)
    page.locator("#list td.prompt a").first.click()
    expect(page.locator("li[data-id]").first).to_contain_text("answer")
    assert "run by a model" not in page.title()
    assert page.locator("main script, main img").count() == 0
    expect(page.locator(".code").first).to_have_text("\\u202e")


def test_two_runs_are_ticked_and_compared(page, site):
    page.goto(site.url)
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Two runs side by side").click()
    expect(page.locator("main")).to_contain_text("40 prompts are in both runs")
    page.get_by_label("in the second run").select_option("higher reward")
    expect(page).to_have_url(re.compile("order=higher"))
    page.locator("td.prompt a").first.click()
    expect(page.locator("[data-samples]")).to_have_count(2)


def test_before_and_after_and_lineage(page, site):
    open_run(page, site, 0)
    page.get_by_role("link", name="Before and after").click()
    page.locator("select[name=reward]").select_option("reward_model")
    expect(page.get_by_role("heading", name="Rewards by reward model")).to_be_visible()
    page.get_by_text("5 more").first.click()
    page.get_by_role("link", name="Lineage").click()
    expect(page.get_by_role("heading", name="Lineage")).to_be_visible()


def test_an_export_is_saved(page, site):
    open_run(page, site, 1)
    page.get_by_label("text").fill("question 1")
    expect(page.locator("#list")).to_contain_text("11 of 40 prompts")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Export pairs").click()
    rows = [json.loads(line) for line in Path(saved.value.path()).read_text().splitlines()]
    assert rows
    assert {row["prompt"][0]["content"].startswith("Question 1") for row in rows} == {True}


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_the_window(page, site, width):
    page.set_viewport_size({"width": width, "height": 800})
    run, ids = site.runs[1].id, "&".join(f"run={run.id}" for run in site.runs)
    open_run(page, site, 1)
    prompt = page.locator("#list td.prompt a").first.get_attribute("href")
    for address in ("/", f"/runs/{run}", prompt, f"/runs/{run}/evaluation", f"/runs/{run}/lineage", f"/compare?{ids}"):
        page.goto(site.url + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address


BROKEN = """Array.from(document.querySelectorAll("table.two td.n")).filter((cell) =>
    Array.from(cell.textContent.matchAll(/\\S+/g)).some((word) => {
        const range = document.createRange();
        range.setStart(cell.firstChild, word.index);
        range.setEnd(cell.firstChild, word.index + word[0].length);
        return range.getClientRects().length > 1;
    })).map((cell) => cell.textContent)"""
"""Cells with a word on two lines."""


def test_no_figure_of_an_evaluation_is_on_two_lines(page, site):
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(f"{site.url}/runs/{site.runs[1].id}/evaluation")
    expect(page.locator("table.two")).to_be_visible()
    page.locator("table.two td.n").first.evaluate("cell => { cell.textContent = '1,234,574.27'; }")
    assert page.evaluate(BROKEN) == []


def test_a_server_that_is_stopped_is_told(chromium, tmp_path):
    with served(tmp_path) as own:
        page = chromium.new_page()
        page.goto(f"{own.url}/runs/{own.runs[1].id}")
        shutil.rmtree(own.store.root)
        page.get_by_label("text").press_sequentially("7")
        expect(page.locator("#list")).to_contain_text("of 40 prompts")
        own.server.terminate()
        own.server.wait(20)
        page.get_by_label("text").press_sequentially("7")
        expect(page.locator("#notice")).to_contain_text("The server does not answer")
        page.close()
