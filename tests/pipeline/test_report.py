import re

import pytest

from tasks.evaluation.tables import evaluation_head, evaluation_page, evaluation_rows
from tasks.pipeline.pages import stage_page, stats_lines
from tasks.store.artifacts import Artifact, Provenance

SFT = {
    "completions": 64,
    "mean_tokens": 12.34,
    "distinct_2": 0.5,
    "repetition": 0.0,
    "reference_nll": 0.0,
    "truncated": 0,
    "rewards": {"reward_model": {"mean": 0.25, "std": 1.0}},
    "finished": {"reward_model": {"mean": 0.25, "std": 1.0}},
}
WIN = {"win_rate": 0.75, "low": 0.7, "high": 0.8, "ties": 0.021, "prompts": 64}
DIVERGENCE = {
    "kl_sequence": 3.5,
    "kl_sequence_low": 3.25,
    "kl_sequence_high": 3.75,
    "kl_token": 0.12345,
    "kl_token_low": 0.11,
    "kl_token_high": 0.13,
    "completions": 64,
    "truncated": 2,
    "temperature": 1.0,
}
ALIGNED = SFT | {
    "mean_tokens": 20.0,
    "distinct_2": 0.25,
    "repetition": 0.05,
    "rewards": {"reward_model": {"mean": 1.75, "std": 0.5}},
    "win_rates": {"reward_model": WIN},
    "finished_win_rates": {"reward_model": WIN},
    "divergence": DIVERGENCE,
}


def evaluation(**policies) -> dict:
    return {"prompts": 64, "reference": "sft", "policies": {"aligned": ALIGNED, "sft": SFT} | policies}


PROVENANCE = Provenance(
    stage="build_pairs",
    version=1,
    key="a" * 64,
    inputs={"rewards": "b" * 64, "completions": "c" * 64},
    config={"pairs": {"tau": 1.0, "eta": 0.85}, "wanted": True},
)


def page(**stats) -> list[str]:
    artifact = Artifact(kind="pairs", uri="s3://b/build_pairs/aaa", digest="d" * 64, rows=12345, stats=stats)
    return stage_page(PROVENANCE, artifact, stats_lines(artifact)).splitlines()


def test_an_evaluation_has_a_row_a_figure_and_a_column_a_policy():
    assert evaluation_head(evaluation()) == ("64 held-out prompts", "sft", "aligned")
    assert evaluation_rows(evaluation()) == [
        ("mean reward by reward model", "0.250", "1.750"),
        ("  standard deviation", "1.000", "0.500"),
        ("completion length (tokens)", "12.3", "20.0"),
        ("distinct-2", "0.500", "0.250"),
        ("repeated 3-grams within a completion", "0.0%", "5.0%"),
        ("perplexity under sft", "1.00", "1.00"),
        ("truncated at max_new_tokens", "0 of 64", "0 of 64"),
        ("win rate over sft by reward model", "", "0.750  [0.700, 0.800]"),
        ("  ties", "", "2.1%"),
        ("KL from sft a sequence (nats)", "", "3.500  [3.250, 3.750]"),
        ("KL from sft a token (nats)", "", "0.1235  [0.1100, 0.1300]"),
        ("  completions drawn at temperature 1", "", "64, 2 truncated"),
    ]


def test_an_evaluation_of_an_earlier_release_has_the_rows_that_it_has():
    older = {
        name: {k: v for k, v in own.items() if k not in ("repetition", "reference_nll")}
        for name, own in evaluation()["policies"].items()
    }
    labels = [row[0] for row in evaluation_rows(evaluation(**older))]
    assert "distinct-2" in labels
    assert not [label for label in labels if "perplexity" in label or "3-grams" in label]


def test_truncated_completions_get_rows_where_there_are_any():
    cut = ALIGNED | {
        "truncated": 8,
        "finished": {"reward_model": {"mean": None, "std": None}},
        "finished_win_rates": {"reward_model": {**WIN, "win_rate": 0.5, "low": 0.25, "high": 0.75, "prompts": 61}},
    }
    rows = evaluation_rows(evaluation(aligned=cut))
    assert ("truncated at max_new_tokens", "0 of 64", "8 of 64") in rows
    labels = [label for label, *_ in rows]
    after = labels.index("  standard deviation") + 1
    assert rows[after] == ("  without truncated completions", "0.250", "none")
    wins = labels.index("win rate over sft by reward model")
    assert rows[wins + 2 : wins + 4] == [
        ("  without truncated completions", "", "0.500  [0.250, 0.750]"),
        ("  prompts compared", "", "61"),
    ]


def test_a_policy_without_rewards_keeps_its_other_figures():
    unread = {"rewards": {"reward_model": {"mean": None, "std": None}}}
    rows = evaluation_rows(evaluation(sft=SFT | unread, aligned=ALIGNED | {"win_rates": {"reward_model": None}}))
    assert rows[:4] == [
        ("mean reward by reward model", "none", "1.750"),
        ("  standard deviation", "none", "0.500"),
        ("completion length (tokens)", "12.3", "20.0"),
        ("distinct-2", "0.500", "0.250"),
    ]
    assert ("win rate over sft by reward model", "", "none") in rows


def test_any_number_of_policies_and_rewards_fits():
    both = {"rewards": {name: {"mean": 0.5, "std": 0.25} for name in ("reward_model", "gold")}}
    wins = dict.fromkeys(("win_rates", "finished_win_rates"), dict.fromkeys(("reward_model", "gold"), WIN))
    figures = evaluation(sft=SFT | both, aligned=ALIGNED | both | wins, another=ALIGNED | both | wins)
    assert evaluation_head(figures)[1:] == ("sft", "aligned", "another")
    rows = evaluation_rows(figures)
    assert rows[0] == ("mean reward by gold", "0.500", "0.500", "0.500")
    assert ("win rate over sft by gold", "", *["0.750  [0.700, 0.800]"] * 2) in rows
    assert {len(row) for row in rows} == {4}


def test_a_page_says_what_was_read_written_and_set():
    lines = page(acceptance_rate=0.123456789, prompts=70)
    assert lines[0] == "# build_pairs"
    assert "Wrote **pairs**, 12,345 rows, to `s3://b/build_pairs/aaa`" in lines
    assert f"| rewards | {'b' * 64} |" in lines
    assert f"| completions | {'c' * 64} |" in lines
    assert "| acceptance_rate | 0.123457 |" in lines
    assert "| prompts | 70 |" in lines
    assert "| pairs.eta | `0.85` |" in lines
    assert "| wanted.value | `True` |" in lines
    assert lines[-1] == f"digest `{'d' * 64}`, key `{'a' * 64}`"


def test_every_table_has_a_head_and_ends():
    lines = page(prompts=70, histogram={"counts": [1], "edges": [0, 1]})
    heads = [place for place, line in enumerate(lines) if line.startswith("| ---")]
    assert [lines[place - 1] for place in heads] == ["| read | digest |", "| count | value |", "| setting | value |"]
    for place in heads:
        assert lines[place - 2] == "", "Markdown needs an empty line before a table"
        assert lines[place] == "| --- | --- |"


def test_a_stage_without_inputs_has_no_table_of_them():
    artifact = Artifact(kind="model", uri="u", digest="d")
    text = stage_page(Provenance(stage="store_model", version=1, key="k"), artifact, [])
    assert text.splitlines() == ["# store_model", "", "Wrote **model**, 0 rows, to `u`", "", "digest `d`, key `k`"]


def test_a_histogram_has_a_bar_a_bin():
    lines = page(histogram={"counts": [2, 0, 8], "edges": [-1.5, -0.5, 0.5, 1.5]})
    start = lines.index("Rewards:")
    assert lines[start + 1] == lines[start + 5] == "```"
    assert [(line.split(), line.count("#")) for line in lines[start + 2 : start + 5]] == [
        (["-1.500", "..", "-0.500", "2", "#" * 10], 10),
        (["-0.500", "..", "0.500", "0"], 0),
        (["0.500", "..", "1.500", "8", "#" * 40], 40),
    ]
    assert not any("counts" in line for line in lines), "the histogram is no count"


def test_a_histogram_of_nothing_has_no_bars():
    lines = page(histogram={"counts": [0, 0], "edges": [0.0, 1.0, 2.0]})
    assert "Rewards:" in lines
    assert not any("##" in line for line in lines)


def test_an_evaluation_s_page_shows_its_table():
    lines = evaluation_page(Artifact(kind="evaluation", uri="u", digest="d", stats=evaluation()))
    assert lines[0] == "| 64 held-out prompts | sft | aligned |"
    assert lines[1] == "| --- | --- | --- |"
    assert "| mean reward by reward model | 0.250 | 1.750 |" in lines
    assert "| · standard deviation | 1.000 | 0.500 |" in lines
    assert "| KL from sft a sequence (nats) |  | 3.500 [3.250, 3.750] |" in lines


@pytest.mark.parametrize("value", ["a|b", "a | b"])
def test_a_bar_in_a_value_does_not_end_its_cell(value):
    lines = page(source=value)
    assert any(line.startswith("| source |") and len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_a_line_break_in_a_value_does_not_end_its_row():
    lines = page(source="a\nb")
    assert all(line.endswith("|") for line in lines if line.startswith("|"))
