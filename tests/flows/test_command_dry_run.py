"""The dry run of the command: every stage foreseen, nothing left behind."""

import json

import pytest
from command_lines import PAIRS, files, overrides

from flows.command_line import main
from flows.rs_dpo import rs_dpo


def plan(folder, capsys, *arguments):
    assert main(rs_dpo, [str(folder / "run.yaml"), "--dry-run", "--json", *arguments]) == {}
    lines = capsys.readouterr().out.splitlines()
    return {step["stage"]: step for step in json.loads(lines[-1])["plan"]}


def test_a_dry_run_foresees_every_stage_and_leaves_nothing(folder, capsys):
    steps = plan(folder, capsys)
    order = ["store_model", "load_held_out", "load_prompts", "load_preferences", "sample_completions"]
    order += ["train_reward_model", "score_completions", "build_pairs", "train_dpo", "evaluate_policy"]
    assert list(steps) == order
    assert {step["action"] for step in steps.values()} == {"compute"}
    assert files(folder) == []
    sampling = steps["sample_completions"]
    assert sampling["completions"] == 4 * sampling["prompts"]
    assert sampling["at most tokens"] == 8 * sampling["completions"]
    held_out = steps["evaluate_policy"]["prompts"]
    assert sampling["prompts"] + held_out == len(PAIRS)
    assert len(sampling["key"]) == 64
    assert steps["train_dpo"]["key"].startswith("known after")


def test_keys_follow_what_a_stage_reads(folder, capsys):
    before = plan(folder, capsys)
    after = plan(folder, capsys, *overrides(sampling__k=5, sampling__part_size=3, scoring__tokens_per_batch=9))
    moved = {name for name in before if before[name]["key"] != after[name]["key"]}
    assert moved == {"sample_completions"}
    assert plan(folder, capsys, *overrides(sampling__part_size=3)) == before


def test_a_dry_run_prints_a_table(folder, capsys):
    main(rs_dpo, [str(folder / "run.yaml"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["sample_completions", "compute"] for line in lines)
    assert any("completions" in line and "at most tokens" in line for line in lines)


def test_a_dry_run_ends_with_what_the_run_would_warn_of(folder, capsys):
    main(rs_dpo, [str(folder / "run.yaml"), "--dry-run", "--set", "sft.epochs=2"])
    assert capsys.readouterr().out.splitlines()[-1].endswith("which is used as it is: sft.epochs")


def test_a_dry_run_leaves_no_temporary_folder(folder, capsys):
    plan(folder, capsys)
    assert list((folder / "tmp").iterdir()) == []


def test_what_the_configuration_reads_is_made_only_where_the_settings_are_right(folder):
    made = []
    with pytest.raises(SystemExit):
        main(rs_dpo, [str(folder / "run.yaml"), "--set", "dpo.betta=1"], prepare=lambda: made.append("wrong"))
    main(rs_dpo, [str(folder / "run.yaml"), "--dry-run"], prepare=lambda: made.append("right"))
    assert made == ["right"]
