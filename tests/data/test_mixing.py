"""Preferences of several sources, of several annotators, and without what the evaluation asks."""

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loaded import asked, draft, id_of, ids, load, no_held_out, write

from tasks.config.data import DataConfig
from tasks.config.errors import ConfigurationError
from tasks.config.sections import PreferenceSource
from tasks.data.contamination import Overlap, words_of
from tasks.data.mixing import copies_of
from tasks.data.prompt_table import hash_fraction
from tasks.data.tally import Tally, read_records
from tasks.prompts import find_data
from tasks.reward_model import split_by_prompt
from tasks.store.artifacts import NOTHING
from tasks.store.parquet import read_table
from tasks.training_data import load_demonstrations, load_preferences

TEXTS = [f"Question {n}?" for n in range(60)]


def pair(prompt, chosen="yes", rejected="no", **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def config(preferences, **settings):
    return DataConfig(prompts="unused", evaluation_prompts="unused", preferences=preferences, **settings)


def loaded(store, preferences, held_out=None, **settings):
    """Return the preferences, as the flow loads them."""
    data, held_out = config(preferences, **settings), held_out or no_held_out(store)
    return load_preferences.body(draft(store, "preferences"), NOTHING, held_out, NOTHING, data)


def rows_of(artifact):
    names = ("chosen", "rejected", "margin")
    return [(r["messages"][-1]["content"], *(r[name] for name in names)) for r in read_table(artifact).to_pylist()]


# Sources


def test_each_source_has_its_counts_and_a_pair_of_both_counts_once(tmp_path, local):
    first = [pair("a"), pair("a", margin=2), pair("b"), pair("c"), pair("c")]
    second = [pair("a", margin=1), pair("b", "no", "yes"), pair("d"), pair("e", "x", "x"), pair("f")]
    sources = [
        {"path": write(tmp_path / "one.jsonl", first), "label": "one"},
        {"path": write(tmp_path / "two.jsonl", second), "label": "two"},
    ]
    found = loaded(local, sources, max_bad_fraction=0.2)
    assert rows_of(found) == [
        ("a", "yes", "no", None),
        ("a", "yes", "no", 2.0),
        ("b", "yes", "no", None),
        ("c", "yes", "no", None),
        ("b", "no", "yes", None),
        ("d", "yes", "no", None),
        ("f", "yes", "no", None),
    ]
    bad, once = {"chosen equals rejected": 1}, {"duplicate": 1}
    assert found.stats == {
        "read": 10,
        "bad": bad,
        "left_out": {"duplicate": 2},
        "contradicting": 1,
        "sources": {
            "one": {"rows": 5, "read": 5, "bad": {}, "left_out": once, "kept": 4},
            "two": {"rows": 5, "read": 5, "bad": bad, "left_out": once, "contradicting": 1, "kept": 3},
        },
    }


def test_one_source_in_a_list_is_that_source_and_what_it_counts_is_in_the_digest(tmp_path, local):
    paths = [write(tmp_path / f"{name}.jsonl", [pair(name)]) for name in "ab"]
    prompts = write(tmp_path / "p.jsonl", asked("xy"))

    def digest(preferences):
        return find_data(local, DataConfig(prompts=prompts, preferences=preferences)).preferences.digest

    one = digest(paths[0])
    assert one == digest([paths[0]]) == digest({"path": paths[0], "label": "x", "weight": 1})
    others = [
        {"path": paths[0], "weight": 2},
        {"path": paths[0], "format": "scored_pairs"},
        paths,
        paths[::-1],
        [paths[0], {"path": paths[1], "weight": 0.5}],
    ]
    assert len({one, *map(digest, others)}) == 6


@pytest.mark.parametrize("weight", [0.4, 1, 2, 2.4])
def test_a_weight_is_how_often_the_pairs_of_a_prompt_are_there(tmp_path, local, weight):
    path = write(tmp_path / "a.jsonl", [pair(text, rejected=no) for text in TEXTS for no in ("no", "never")])
    found = loaded(local, [{"path": path, "weight": weight}, write(tmp_path / "b.jsonl", [pair("b")])])
    expected = {text: int(weight) + (hash_fraction(f"weight:{id_of(text)}") < weight % 1) for text in TEXTS}
    rows = [row[0] for row in rows_of(found)]
    assert {text: rows.count(text) for text in TEXTS} == {text: 2 * count for text, count in expected.items()}
    assert rows.count("b") == 1
    own = found.stats["sources"][path]
    assert own["kept"] == 2 * sum(count > 0 for count in expected.values())
    assert own["read"] == own["kept"] + sum(own["left_out"].values()) == 120


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_larger_weight_never_gives_fewer_copies(prompt_id, one, two):
    low, high = sorted((one, two))
    assert copies_of(prompt_id, low) <= copies_of(prompt_id, high) <= high + 1
    assert copies_of(prompt_id, 3.0) == 3


def test_weights_are_exact_on_average():
    ids = [str(n) for n in range(4000)]
    assert sum(copies_of(id_, 1.25) for id_ in ids) == pytest.approx(5000, rel=0.02)


def test_held_out_pairs_are_split_by_prompt_across_sources(tmp_path, local):
    paths = [write(tmp_path / f"{no}.jsonl", [pair(text, rejected=no) for text in TEXTS]) for no in ("no", "never")]
    train, held_out = split_by_prompt(read_table(loaded(local, [{"path": paths[0], "weight": 2}, paths[1]])), 0.3, 0)
    asked_in = [set(table["prompt_id"].to_pylist()) for table in (train, held_out)]
    assert not asked_in[0] & asked_in[1]
    assert len(asked_in[0] | asked_in[1]) == 60
    assert held_out.num_rows == 3 * len(asked_in[1]) > 0


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        (["a", "a"], "two sources of data.preferences are called 'a': give each its own `label`"),
        (["a", "added"], "'added' cannot be one of several sources"),
        ([{"path": "a", "weight": 0}], "greater than 0"),
        ([], "at least 1 item"),
    ],
)
def test_sources_that_make_no_sense_are_refused(preferences, message):
    with pytest.raises(ValueError, match=message):
        config(preferences)


def test_too_many_bad_rows_of_one_source_are_told_by_its_label(tmp_path, local):
    good = write(tmp_path / "a.jsonl", [pair(text) for text in TEXTS])
    bad = {"path": write(tmp_path / "b.jsonl", [pair("x", ""), pair("y")]), "label": "poor"}
    with pytest.raises(ConfigurationError, match=r"poor: 1 of 2 rows are bad.*empty chosen: 1 \(first b.jsonl line 1"):
        loaded(local, [good, bad])


# Annotators


def votes(tmp_path):
    ann, bob, cid = ({"annotator": name} for name in ("ann", "bob", "cid"))
    rows = [
        pair("a", **ann),
        pair("a", "no", "yes", **bob),
        pair("a", "no", "yes", **cid),
        pair("a", "no", "yes", **cid),  # has voted
        pair("b"),
        pair("b", "no", "yes"),
        pair("c", "x", "y", margin=7),
        pair("c", "x", "y"),
        pair("c", "x", "z"),
    ]
    return write(tmp_path / "votes.jsonl", rows)


def test_the_majority_makes_one_pair_with_their_agreement_as_margin(tmp_path, local):
    found = loaded(local, votes(tmp_path), consensus="majority")
    assert rows_of(found) == [("a", "no", "yes", pytest.approx(1 / 3)), ("c", "x", "y", 1.0), ("c", "x", "z", 1.0)]
    merged = {"merged into one pair by majority": 3 + 1, "tie": 2}
    assert found.stats == {"read": 9, "bad": {}, "left_out": merged}


def test_without_a_majority_each_row_stays(tmp_path, local):
    found = loaded(local, votes(tmp_path))
    assert found.rows == 7
    assert found.stats == {"read": 9, "bad": {}, "left_out": {"duplicate": 2}, "contradicting": 2}


def test_a_majority_is_counted_over_sources(tmp_path, local):
    one = write(tmp_path / "one.jsonl", [pair("a")])
    two = write(tmp_path / "two.jsonl", [pair("a", "no", "yes"), pair("a", "no", "yes")])
    found = loaded(local, [one, two], consensus="majority")
    assert rows_of(found) == [("a", "no", "yes", pytest.approx(1 / 3))]
    own = found.stats["sources"]
    assert [own[path]["kept"] for path in (one, two)] == [1, 0]
    assert all(each["read"] == each["kept"] + sum(each["left_out"].values()) for each in own.values())


# Words of the evaluation

EVALUATION = "Please tell me how a grey seal sleeps under water."
COPIES = {
    "tell me: HOW a grey seal  sleeps, under": True,  # eight words of it
    "tell me how a grey seal sleeps": False,  # seven
    "I wonder. Me how a grey seal sleeps under water? Thanks": True,
    "please tell him how a grey seal sleeps under ice": False,
    "What\u2019s up": True,
    "what's up, doc": False,
}


def test_a_prompt_overlaps_by_eight_words_and_a_short_one_by_all():
    rows = [{"messages": [{"role": "user", "content": text}]} for text in (EVALUATION, "What's up?", "?!")]
    overlap = Overlap(rows, 8)
    for text, found in COPIES.items():
        assert overlap.found("a line 1", [{"role": "user", "content": text}]) is found, text
    assert not overlap.found("a line 2", [{"role": "user", "content": "..."}])


def test_what_the_user_says_counts_alone():
    said = [("system", "Be kind"), ("user", "Don't!"), ("assistant", "Why not"), ("user", "\uff33eals sleep_x")]
    assert words_of([{"role": role, "content": text} for role, text in said]) == ["dont", "seals", "sleep_x"]


def test_nothing_is_trained_on_that_shares_words_with_a_held_out_prompt(tmp_path, local, policy, capsys):
    rows = [{**pair(text), "completion": "yes"} for text in [*COPIES, *TEXTS]]
    path = write(tmp_path / "a.jsonl", rows)
    other = write(tmp_path / "e.jsonl", asked([EVALUATION, "What's up?"]))
    data = DataConfig(prompts=path, demonstrations=path, preferences=[path], evaluation_prompts=other, decontaminate=8)
    held_out, prompts = load(local, policy, data)
    kept = {id_of(text) for text, found in COPIES.items() if not found} | {id_of(text) for text in TEXTS}
    demonstrations = load_demonstrations.body(draft(local, "d"), NOTHING, held_out, NOTHING, data)
    preferences = load_preferences.body(draft(local, "p"), NOTHING, held_out, NOTHING, data)
    for artifact in (demonstrations, preferences):
        assert set(read_table(artifact)["prompt_id"].to_pylist()) == kept == ids(prompts)
        assert artifact.stats["left_out"] == {"shares words with a held-out prompt": 3}
    output = capsys.readouterr()
    said = output.out + output.err
    assert "a.jsonl line 1 shares words with a held-out prompt, and is left out: 'tell me how a grey seal" in said


def test_prompts_that_a_benchmark_has_taken_from_a_data_set_are_found_in_it(test_data):
    """AlpacaEval has taken prompts from the test split of HH's helpful-base; MT-Bench was written anew."""
    pairs = Tally("hh", 1.0)
    hh = PreferenceSource(path=str(test_data / "hh-rlhf/helpful-base_test.jsonl.gz"))
    rows = [(where, record.messages) for where, record in read_records(hh, "preferences", pairs)]
    alpaca_eval = set(pq.read_table(test_data / "best_of_n/tulu2_13b_200x11.parquet")["prompt"].to_pylist())
    mt_bench = [json.loads(line)["turns"] for line in (test_data / "mt_bench/question.jsonl").read_text().splitlines()]
    counts = []
    for texts in (alpaca_eval, [turn for turns in mt_bench for turn in turns]):
        overlap = Overlap([{"messages": [{"role": "user", "content": text}]} for text in texts], 8)
        counts.append(sum(overlap.found(*row) for row in rows))
    assert (len(rows), counts) == (2339, [167, 0])
