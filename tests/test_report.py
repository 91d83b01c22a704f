import pytest

from tasks.pipeline.pages import evaluation_rows, stage_page
from tasks.store.artifacts import Artifact, Provenance

SFT = {
    "reward_mean": 0.25,
    "reward_std": 1.0,
    "mean_tokens": 12.34,
    "distinct_2": 0.5,
    "completions": 64,
    "truncated": 0,
}
ALIGNED = {**SFT, "reward_mean": 1.75, "reward_std": 0.5, "mean_tokens": 20.0, "distinct_2": 0.25}
WIN = {"win_rate": 0.75, "low": 0.7, "high": 0.8, "ties": 0.021, "prompts": 64}
EVALUATION = {
    "sft": SFT,
    "aligned": ALIGNED,
    "reward": WIN,
    "without_truncated": {"sft": SFT, "aligned": ALIGNED, "reward": WIN, "prompts_left_out": 0},
    "divergence": {
        "kl_sequence": 3.5,
        "kl_sequence_low": 3.25,
        "kl_sequence_high": 3.75,
        "kl_token": 0.12345,
        "kl_token_low": 0.11,
        "kl_token_high": 0.13,
        "completions": 64,
        "truncated": 2,
        "temperature": 1.0,
    },
    "prompts": 64,
}
PROVENANCE = Provenance(
    stage="build_pairs",
    version=1,
    key="a" * 64,
    inputs={"rewards": "b" * 64, "completions": "c" * 64},
    config={"pairs": {"tau": 1.0, "eta": 0.85}, "wanted": True},
)


def page(**stats) -> list[str]:
    artifact = Artifact(kind="pairs", uri="s3://b/build_pairs/aaa", digest="d" * 64, rows=12345, stats=stats)
    return stage_page(PROVENANCE, artifact).splitlines()


def test_an_evaluation_has_a_row_a_figure():
    assert evaluation_rows(EVALUATION) == [
        ("reward model", "0.250", "1.750"),
        ("  standard deviation", "1.000", "0.500"),
        ("completion length (tokens)", "12.3", "20.0"),
        ("distinct-2", "0.500", "0.250"),
        ("truncated at max_new_tokens", "0 of 64", "0 of 64"),
        ("win rate by reward model", "0.250  [0.200, 0.300]", "0.750  [0.700, 0.800]"),
        ("  ties", "", "2.1%"),
        ("KL from pi_SFT a sequence (nats)", "", "3.500  [3.250, 3.750]"),
        ("KL from pi_SFT a token (nats)", "", "0.1235  [0.1100, 0.1300]"),
        ("  completions drawn at temperature 1", "", "64, 2 truncated"),
    ]


def test_truncated_completions_get_rows_where_there_are_any():
    without = {
        "sft": {"reward_mean": 0.5, "reward_std": 1.0},
        "aligned": {"reward_mean": None, "reward_std": None},
        "reward": {**WIN, "win_rate": 0.5, "low": 0.25, "high": 0.75},
        "prompts_left_out": 3,
    }
    rows = evaluation_rows({**EVALUATION, "aligned": ALIGNED | {"truncated": 8}, "without_truncated": without})
    assert ("truncated at max_new_tokens", "0 of 64", "8 of 64") in rows
    labels = [label for label, _, _ in rows]
    after = labels.index("  standard deviation") + 1
    assert rows[after] == ("  without truncated completions", "0.500", "none")
    label = "  without truncated completions (3 prompts left out)"
    assert rows[labels.index(label)] == (label, "0.500  [0.250, 0.750]", "0.500  [0.250, 0.750]")
    assert labels.index(label) == labels.index("win rate by reward model") + 2


def test_a_policy_without_rewards_keeps_its_other_figures():
    unread = SFT | {"reward_mean": None, "reward_std": None}
    rows = evaluation_rows({**EVALUATION, "sft": unread, "reward": None})
    assert rows[:4] == [
        ("reward model", "none", "1.750"),
        ("  standard deviation", "none", "0.500"),
        ("completion length (tokens)", "12.3", "20.0"),
        ("distinct-2", "0.500", "0.250"),
    ]


def test_gold_rewards_come_first_where_there_are_any():
    gold = {"gold_mean": -0.5, "gold_std": 0.25}
    win = {"win_rate": 0.9, "low": 0.85, "high": 0.95, "ties": 0.0}
    rows = evaluation_rows(
        {**EVALUATION, "sft": SFT | gold, "aligned": ALIGNED | {**gold, "gold_mean": 2}, "gold": win}
    )
    assert rows[:2] == [("gold reward", "-0.500", "2.000"), ("  standard deviation", "0.250", "0.250")]
    labels = [label for label, _, _ in rows]
    assert labels.index("win rate by gold reward") < labels.index("win rate by reward model")
    assert ("win rate by gold reward", "0.100  [0.050, 0.150]", "0.900  [0.850, 0.950]") in rows


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
    text = stage_page(Provenance(stage="store_model", version=1, key="k"), artifact)
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
    lines = page(**EVALUATION)
    assert "| held-out prompts | SFT | RS-DPO |" in lines
    assert "| --- | --- | --- |" in lines
    assert "| reward model | 0.250 | 1.750 |" in lines
    assert "| KL from pi_SFT a sequence (nats) |  | 3.500 [3.250, 3.750] |" in lines
    assert not any("divergence" in line for line in lines)


@pytest.mark.parametrize("value", ["a|b", "a | b"])
def test_a_bar_in_a_value_does_not_end_its_cell(value):
    lines = page(source=value)
    assert any(line.startswith("| source |") and line.count("|") == 3 for line in lines)


def test_a_line_break_in_a_value_does_not_end_its_row():
    lines = page(source="a\nb")
    assert all(line.endswith("|") for line in lines if line.startswith("|"))
