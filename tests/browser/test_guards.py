"""Who is answered: this machine's own browser, by GET alone, with headers that let nothing but our files run."""

import re

import pytest
from browsing import HOST
from starlette.testclient import TestClient

from tasks.browser.pages import STATIC, TEMPLATES

PAGES = ["", "/evaluation", "/lineage", "/threshold?tau=1&eta=0.85", "/export.jsonl", "/prompts/none"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8322", "localhost:8322"])
def test_this_machine_is_answered(browsed, host):
    assert browsed.client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8322", "127.0.0.1.evil.example", "", "[::ffff:a00:1]"])
def test_another_name_for_this_machine_is_refused(browsed, host):
    """Else a site could have its name lead here, and read the pages as its own (DNS rebinding)."""
    answer = browsed.client.get("/", headers={"Host": host})
    assert answer.status_code == 400
    assert "Runs" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_nothing_but_get_is_answered(browsed, method):
    for address in ("/", f"/runs/{browsed.runs[0].id}", "/static/page.js"):
        assert browsed.client.request(method, address).status_code == 405


def test_other_sites_are_refused(browsed):
    assert browsed.client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browsed.client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200
    assert "access-control-allow-origin" not in browsed.client.get("/", headers={"Origin": "http://evil"}).headers


@pytest.mark.parametrize("page", PAGES)
def test_every_answer_has_the_headers(browsed, page):
    headers = browsed.get(page).headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_errors_and_files_have_the_headers_too(browsed):
    for address in ("/none", "/runs/none", "/static/style.css", "/static/none"):
        assert "content-security-policy" in browsed.client.get(address).headers


def test_there_is_no_script_and_no_style_within_a_page(browsed):
    """The policy would refuse them; a template that has some would not work."""
    for path in TEMPLATES.iterdir():
        text = path.read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|javascript:|\|\s*safe", text), path.name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), path.name


def test_nothing_is_loaded_from_elsewhere():
    for path in (*TEMPLATES.iterdir(), STATIC / "style.css", STATIC / "page.js"):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|url\(|@import", text), path.name


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/runs/..%2f..", "/runs/%00", "/runs/a b"]
)
def test_no_address_leaves_its_place(browsed, path):
    assert browsed.client.get(path).status_code == 404


def test_an_error_within_a_page_is_a_line(browsed):
    answer = browsed.client.get("/runs/none", headers={"HX-Request": "true"})
    assert answer.status_code == 404
    assert answer.text.startswith('<p id="line"')


def test_a_run_s_name_is_text(browsed):
    answer = browsed.client.get("/runs/%3Cscript%3E")
    assert "<script>" not in answer.text.replace("<script src", "")


def test_two_clients_are_answered_at_once(browsed):
    other = TestClient(browsed.client.app, base_url=HOST)
    assert other.get("/").text == browsed.client.get("/").text
