"""docs/evidence.md: sections that are not run stay, and what a comparison says becomes tables and figures."""

import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest
from runs import ROOT

TOLD = {"weakened": {"head": [], "rows": []}, "failed": {}, "head": ["arm"], "rows": [["sft"]]}


@pytest.fixture(scope="module")
def evidence():
    return runpy.run_path(str(ROOT / "benchmarks/evidence.py"))


def verdict(arm, other, word):
    return {"arm": arm, "other": other, "word": word, "sentence": f"{arm} is {word or 'not told apart from'} {other}."}


def test_the_page_is_its_head_and_its_sections(evidence):
    text = (ROOT / "docs/evidence.md").read_text()
    found = evidence["sections"](text)
    assert found.keys() <= evidence["SHIPPED"].keys()
    assert "\n".join([evidence["HEAD"], *found.values()]) == text


def test_every_shipped_comparison_has_a_name(evidence):
    assert {"facts", "paper"} <= evidence["SHIPPED"].keys()
    assert all(path.exists() for path in evidence["SHIPPED"].values())


def test_few_arms_have_sentences_and_many_a_table(evidence):
    few = evidence["part_lines"]({**TOLD, "name": "", "verdicts": [verdict("a", "b", "better")]})
    assert few == ["| arm |", "| --- |", "| sft |", "", "- a is better b.", ""]
    arms = list("abcdefg")
    pairs = [verdict(one, other, "worse" if one == "a" else "") for one in arms for other in arms if one < other]
    many = evidence["part_lines"]({**TOLD, "name": " with 10 pairs each", "verdicts": pairs})
    assert many[0] == "### With 10 pairs each"
    assert many[-9:-1] == [
        "|  | b | c | d | e | f | g |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| a | worse | worse | worse | worse | worse | worse |",
        "| b |  | = | = | = | = | = |",
        "| c |  |  | = | = | = | = |",
        "| d |  |  |  | = | = | = |",
        "| e |  |  |  |  | = | = |",
        "| f |  |  |  |  |  | = |",
    ]


def test_losses_and_arms_without_a_result_are_said(evidence):
    lost = {"head": ["arm", "lost (%)"], "rows": [["a / b", "50 [40, 60]"]]}
    part = {**TOLD, "name": "", "verdicts": [], "weakened": lost, "failed": {"c": "no pair"}}
    lines = evidence["part_lines"](part)
    assert "| a / b | 50 [40, 60] |" in lines
    assert "- c has no result: no pair" in lines


def test_figures_are_those_of_the_comparison_but_for_pairs_of_arms(evidence, tmp_path, monkeypatch):
    (tmp_path / "img").mkdir()
    monkeypatch.setitem(evidence["figures"].__globals__, "DOCS", tmp_path)
    shown = [("var(--one)", "Reward &gt; 0"), ("b", "Each pair of arms: x"), ("c", "Sweep")]
    figures = "".join(
        f"<figure><svg>{svg}</svg>\n<figcaption>{caption}</figcaption></figure>" for svg, caption in shown
    )
    page = f"<nav>What with 9 pairs each?</nav>{figures}<h2>What with 9 pairs each?</h2>{figures}"
    lines = evidence["figures"]("x", page)
    assert lines == ["![Reward > 0](img/compare_x.svg)", "", "![Sweep](img/compare_x_1.svg)", ""]
    assert ElementTree.parse(tmp_path / "img/compare_x.svg").getroot().text == "#9a6700"
    assert {path.name for path in Path(tmp_path / "img").iterdir()} == {"compare_x.svg", "compare_x_1.svg"}


@pytest.mark.parametrize("figure", sorted((ROOT / "docs/img").glob("*.svg")), ids=lambda path: path.name)
def test_each_figure_is_a_file_that_a_browser_draws(figure):
    root = ElementTree.parse(figure).getroot()  # raises where a namespace is missing
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_figure_of_a_page_has_its_namespaces_and_colours_as_a_file(evidence):
    page = '<svg viewBox="0 0 1 1"><use xlink:href="#a" style="fill: var(--one)"/></svg>'
    root = ElementTree.fromstring(evidence["alone"](page))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in ElementTree.tostring(root, encoding="unicode")
