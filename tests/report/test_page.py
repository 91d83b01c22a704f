"""The report as a page: what a model wrote is shown and never run, and what is missing is left out."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tasks.inspection.printable import printable
from tasks.monitors.judging import MonitorsConfig, judge
from tasks.report.believed import conclusion
from tasks.report.page import report_page
from tasks.report.samples import read_answers, shortened, three_samples, to_leaf_through

BAD = "<script>alert(1)</script> \u202eevil\u2066 \x00 </div> {{ 7*7 }} ${7} & \"quote'"


class Page(HTMLParser):
    """Collects tags, and the text outside of style."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "link", "use", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag, "tags are nested"

    def handle_data(self, data):
        self.texts.append(data)


def rows(number, text="fine"):
    rewards = np.random.default_rng(0).normal(size=(number, 2))
    return [(f"question {n} {'x' * n}", f"{text} {n}", f"{text} {-n}", *rewards[n]) for n in range(number)]


def test_what_a_model_wrote_is_text_and_nothing_else(facts_of):
    page = report_page(facts_of([(BAD, BAD, BAD, 0.0, 1.0), *rows(5)], sources=[BAD, *"abcde"]))
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    assert not [attrs for _, attrs in parsed.tags if any(name.startswith("on") for name in attrs)]
    shown = "".join(parsed.texts)
    assert "<script>alert(1)</script>" in shown
    assert "\\u202eevil\\u2066 \\x00 </div> {{ 7*7 }}" in shown
    assert "\u202e" not in shown
    assert "\x00" not in shown
    assert parsed.open == []


def test_nothing_is_fetched(facts_of):
    text = report_page(facts_of(rows(20))).decode()
    assert not re.findall(r'(?:src|href)="(?!#)', text)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)
    assert "Content-Security-Policy" in text


def test_figures_have_text_and_follow_the_page_s_colours(facts_of):
    parsed = Page(report_page(facts_of(rows(20))))
    figures = [attrs for tag, attrs in parsed.tags if tag == "figure"]
    assert figures
    assert all(len(attrs["aria-label"]) > 40 and attrs["role"] == "img" for attrs in figures)
    text = report_page(facts_of(rows(20))).decode()
    assert "var(--one)" in text
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", text)


def test_an_empty_completion_is_called_so(facts_of):
    text = report_page(facts_of([("q", "", "something", 0.0, 1.0)])).decode()
    assert re.search('sft, reward 0.000</div><div class="soft">\\(empty\\)</div>', text)
    assert text.count("(empty)") == 4, "one of each kind of samples"


def test_long_texts_are_cut_with_a_note_and_the_page_stays_small(facts_of):
    page = report_page(facts_of([(f"q{n}", "w" * 100_000, "v" * 100_000, 0.0, float(n)) for n in range(50)]))
    assert len(page) < 3_000_000
    assert b"98,500 more characters" in page


@pytest.mark.parametrize("number", [1, 2])
def test_a_few_prompts_are_enough(facts_of, number):
    assert b"Did it get better?" in report_page(facts_of(rows(number)))


def test_a_run_that_has_just_begun_has_a_page(facts_of):
    facts = facts_of(rows(1))
    facts.artifacts.clear()
    page = report_page(facts).decode()
    assert "No monitor has measured anything yet." in page
    assert "Did it get better?" not in page


def test_no_figure_is_healthy_where_none_was_measured():
    unmeasured = judge("train_reward_model", {}, MonitorsConfig())
    assert conclusion(unmeasured) == "No figure could be judged; not measured: 2."
    measured = judge("train_reward_model", {"ece": 0.1}, MonitorsConfig())
    assert conclusion(measured) == "All 1 figures are within their healthy range; not measured: 1."


def test_no_reward_on_one_side(facts_of):
    page = report_page(facts_of([("q", "a", "b", np.nan, 1.0), ("r", "a", "b", np.nan, 2.0)]))
    assert b"Did it get better?" in page


@pytest.mark.parametrize("before", [0.0, 0.3, 1e8])
def test_rewards_that_differ_in_their_last_bits_alone(facts_of, before):
    page = report_page(facts_of([("q", "a", "b", before, np.nextafter(before, 2 * before + 1))] * 3))
    assert b"Rewards by reward model before and after" in page


def test_win_rates_by_source_and_length(facts_of):
    given = [("short", "a", "b", 0.0, 1.0), ("long" * 9, "a", "b", 1.0, 0.0), ("long" * 10, "a", "b", 0.0, 1.0)]
    text = report_page(facts_of(given, sources=["data/one.jsonl", "data/two.jsonl", "data/two.jsonl"])).decode()
    cells = [re.sub("<.*?>", " ", row).split() for row in re.findall("<tr>.*?</tr>", text)]
    assert ["one.jsonl", "1", "0.000", "1.000", "1.000", "[1.000,", "1.000]"] in cells
    assert ["two.jsonl", "2", "0.500", "0.500", "0.500", "[0.000,", "1.000]"] in cells


def test_samples_are_chosen_by_rule(facts_of):
    gains = [3.0, -2.0, 0.5, 1.0, 9.0]
    facts = facts_of([(f"q{n}", f"before {n}", f"after {n}", 0.0, gain) for n, gain in enumerate(gains)])
    answers = read_answers(facts.artifacts["evaluate_policy"])
    assert [sample.sides[1].completion for sample in three_samples(answers, {})] == ["after 3", "after 4", "after 1"]
    assert three_samples(answers, {})[0].note == "median gain: reward model +1.000"
    assert three_samples(answers, {})[2].note == "largest loss: reward model -2.000"
    kinds = {kind.title: [s.sides[1].completion for s in kind.samples] for kind in to_leaf_through(answers, {})}
    assert kinds["Largest gains"][:2] == ["after 4", "after 0"]
    assert kinds["Smallest gains, or largest losses"][:2] == ["after 1", "after 2"]
    assert sorted(kinds["Random"]) == sorted(f"after {n}" for n in range(5))


@pytest.mark.parametrize(
    ("gains", "best", "worst"),
    [((0.0, 2.0, 1.0), "largest gain", "smallest gain"), ((-1.0, -2.0, -3.0), "smallest loss", "largest loss")],
)
def test_no_gain_is_called_a_loss_and_no_loss_a_gain(facts_of, gains, best, worst):
    facts = facts_of([(f"q{n}", "before", "after", 0.0, gain) for n, gain in enumerate(gains)])
    notes = [sample.note for sample in three_samples(read_answers(facts.artifacts["evaluate_policy"]), {})]
    assert notes[1:] == [f"{best}: reward model {max(gains):+.3f}", f"{worst}: reward model {min(gains):+.3f}"]


def test_printable_and_shortened():
    assert printable("a\tb\nc\x1b[31m\u200b\ud800") == "a\tb\nc\\x1b[31m\\u200b\\ud800"
    for seen in ("naïve 文字 🙂", "Ça va\u00a0?", "日本\u3000語", "می\u200cخوریم", "👨\u200d👩\u200d👧"):
        assert printable(seen) == seen
    assert shortened("x" * 1501).endswith("x ... (1 more characters)")
