"""Functions that fail on some completions: what is stored, what is called again, and what stops a run."""

import sys

import numpy as np
import pytest
from pair_tables import completions_of, prompts_of

from tasks.config.errors import ConfigurationError
from tasks.config.rewards import RewardSource
from tasks.config.settings import ScoringConfig
from tasks.rewards.functions import function_digest
from tasks.rewards.scoring import score_slices
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.slices import column_pieces, read_slices

SOURCE = """
from pathlib import Path

HERE = Path(__file__).parent

def fragile(messages, completion):
    text = messages[-1]["content"]
    with (HERE / "calls").open("a") as file:
        print(text, file=file)
    if (HERE / "down").exists() and text == "w7":
        raise ConnectionError("the service is down")
    return len(text)
"""


@pytest.fixture
def called(tmp_path, monkeypatch):
    """Score two parts of three prompts with 4, 2 and 3 completions; return rewards and prompts that were called."""
    (tmp_path / "fragile_reward.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fragile_reward", raising=False)
    store = Store(str(tmp_path / "store"))
    prompts, completions = prompts_of(store), completions_of(store, [["a", "b"], ["c"]])

    def score(most: float) -> tuple[list[float], list[str]]:
        source = RewardSource(function="fragile_reward:fragile", max_failed=most)
        stats = {"name": "own", "source": source.model_dump(mode="json")}
        reward = Artifact(kind="function", uri="", digest=function_digest(source.called), stats=stats)
        (tmp_path / "calls").write_text("")
        slices, _ = score_slices(store, reward, read_slices(store, completions), prompts, ScoringConfig())
        rewards = np.concatenate([rows["reward"].to_numpy() for rows in column_pieces(slices, ["reward"])])
        return sorted(rewards.tolist()), (tmp_path / "calls").read_text().split("\n")[:-1]

    score.folder = tmp_path
    return score


def test_what_failed_is_called_again_and_what_was_scored_is_kept(called):
    (called.folder / "down").touch()
    with pytest.raises(
        ConfigurationError, match=r"rewards.own gives 2 of 9 completions no reward, first b/0, b/1, and"
    ):
        called(0.1)
    with pytest.raises(
        ConfigurationError, match=r"rewards.own gives 2 of 9 completions no reward, first b/0, b/1, and"
    ):
        called(0.1)  # no warning tells them now, if what failed were kept
    (called.folder / "down").unlink()
    assert called(0.1) == ([2, 2, *[5] * 4, *[9] * 3], ["w7", "w7"])
    assert called(0.1)[1] == []


def test_what_may_fail_is_kept_without_a_reward(called):
    (called.folder / "down").touch()
    rewards, calls = called(0.5)
    assert (np.isnan(rewards).sum(), len(calls)) == (2, 9)
    (called.folder / "down").unlink()
    rewards, calls = called(0.5)
    assert (np.isnan(rewards).sum(), len(calls)) == (2, 0)
    with pytest.raises(ConfigurationError, match=r"first b/0, b/1, and its max_failed is 0.1"):
        called(0.1)
