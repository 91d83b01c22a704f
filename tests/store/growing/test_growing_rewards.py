"""Rewards of completions that grow: each computed once, and never given to another."""

from collections import Counter
from pathlib import Path

import pytest
from growing import PROMPTS, decoding, draft, prompts, rows_of, score

import tasks.sampling.completions
import tasks.sampling.drawing
from tasks.config.settings import SamplingConfig, ScoringConfig
from tasks.pairs import build_pairs
from tasks.rewards.table import unscored
from tasks.sample import sample_completions
from tasks.sampling.completions import sample_slices
from tasks.score import score_completions
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.manifests import read_files
from tasks.store.parquet import read_table
from tasks.store.slices import commit_slices, read_slices

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_was_scored_is_found_whatever_is_asked_for(policy, reward_model, store):
    slices, _ = sample_slices(store, policy, prompts(store), decoding(4, part_size=4))
    drawn = commit_slices(draft(store, "sample", "all"), "completions", slices, {})
    all_scored = score(store, reward_model, drawn)
    assert all_scored.stats["scored"] == 4 * PROMPTS
    rewards = rows_of(read_slices(store, all_scored))
    for k, number, part_size in ((4, 5, 4), (2, PROMPTS, 1), (3, 6, 9)):
        some, _ = sample_slices(store, policy, prompts(store, number), decoding(k, part_size))
        asked = commit_slices(draft(store, "sample", f"{k} {number}".replace(" ", "-")), "completions", some, {})
        scored = score(store, reward_model, asked, f"{k}-{number}", number)
        assert (scored.stats["scored"], scored.rows) == (0, k * number)
        wanted = {(row["prompt_id"], row["completion_id"]) for row in rows_of(some)}
        expected = [row for row in rewards if (row["prompt_id"], row["completion_id"]) in wanted]
        assert rows_of(read_slices(store, scored)) == expected


def test_further_rows_of_a_part_are_scored_alone(policy, reward_model, store, tmp_path):
    sample_slices(store, policy, prompts(store), decoding(4, part_size=4))
    counts = []
    for k, number in ((2, 5), (3, 5), (4, PROMPTS), (4, PROMPTS)):
        some, _ = sample_slices(store, policy, prompts(store, number), decoding(k))
        drawn = commit_slices(draft(store, "sample", f"{k}-{len(counts)}"), "completions", some, {})
        scored = score(store, reward_model, drawn, f"{k}-{len(counts)}")
        counts.append(scored.stats["scored"])
        assert unscored(store, reward_model, some, ScoringConfig()) == []
    assert counts == [10, 5, 4 * PROMPTS - 15, 0]
    other = Store(str(tmp_path / "other"))
    some, _ = sample_slices(other, policy, prompts(other), decoding(4))
    at_once = score(other, reward_model, commit_slices(draft(other, "sample", "s"), "completions", some, {}))
    ours, theirs = (rows_of(read_slices(*own)) for own in ((store, scored), (other, at_once)))
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine == yours | {"reward": pytest.approx(yours["reward"], abs=1e-5)}


@pytest.mark.parametrize("redrawn", ["equal", "other"])
def test_completions_drawn_again_in_other_parts_keep_their_own_rewards(
    redrawn, policy, reward_model, store, damage, monkeypatch
):
    def run(part_size: int, eta: float) -> tuple[Artifact, Artifact, Artifact]:
        """Sample, score and pair as stages do, each found where its inputs' digests are known."""
        slices, _ = sample_slices(store, policy, prompts(store), decoding(4, part_size))
        drawn = commit_slices(draft(store, "sample", f"s{part_size}"), "completions", slices, {})
        key = f"r{drawn.digest[:20]}"
        scored = draft(store, "score", key).find() or score(store, reward_model, drawn, key)
        config = PairsConfig(tau=0.01, eta=eta, truncated="keep")
        return drawn, scored, build_pairs.body(draft(store, "pairs", f"p{eta}"), scored, drawn, config)

    drawn, scored, _ = run(4, 0.85)
    texts = {(row["prompt_id"], row["completion_id"]): row["completion"] for row in rows_of(read_slices(store, drawn))}
    part = read_slices(store, drawn)[0].part
    damage(f"{part.uri}/{read_files(part)['rows.parquet'].path}", "flip")
    if redrawn == "other":  # as on a GPU, where a batch of another shape rounds otherwise
        seed = tasks.sampling.drawing.prompt_seed
        monkeypatch.setattr(tasks.sampling.drawing, "prompt_seed", lambda *of: seed(*of) + 1)
    again, rescored, pairs = run(2, 0.6)
    new = {(row["prompt_id"], row["completion_id"]): row["completion"] for row in rows_of(read_slices(store, again))}
    assert (new == texts) == (redrawn == "equal") == (rescored == scored)
    assert rescored.stats["scored"] == (part.rows if redrawn == "other" else 4 * PROMPTS)
    rewards = {(r["prompt_id"], r["completion_id"]): r["reward"] for r in rows_of(read_slices(store, rescored))}
    assert rewards.keys() == new.keys()
    by_text = score_texts(reward_model, store, new)
    assert rewards == pytest.approx(by_text, abs=1e-5)
    for row in read_table(pairs).to_pylist():
        assert row["chosen_reward"] == rewards[row["prompt_id"], row["chosen_id"]]
        assert row["rejected_reward"] == rewards[row["prompt_id"], row["rejected_id"]]
    assert pairs.rows == len(all_pairs(rewards, 0.01, 0.6))


def test_shards_score_whole_prompts_and_only_what_has_no_reward(policy, reward_model, store):
    sampling = SamplingConfig(k=4, max_new_tokens=4, part_size=2, engine="transformers")
    ids = prompts(store, PROMPTS - 2)
    for k, part_size, number in ((2, 2, 4), (3, 4, PROMPTS), (4, 3, PROMPTS - 2)):
        slices, _ = sample_slices(store, policy, prompts(store, number), decoding(k, part_size))
    score(store, reward_model, commit_slices(draft(store, "sample", "s"), "completions", slices[:3], {}), "some")
    whole = commit_slices(draft(store, "sample", "whole"), "completions", slices, {})
    missing = sum(slice_.num_rows() for slice_ in unscored(store, reward_model, slices, ScoringConfig()))
    split = score_completions.options["split"]
    shards = split(store, reward_model, whole, ids, ScoringConfig(), shards=2)
    assert len(shards) == 2
    for shard in shards:
        counts = Counter(row["prompt_id"] for row in rows_of(read_slices(store, shard["completions"])))
        assert counts == dict.fromkeys(read_table(shard["prompts"])["prompt_id"].to_pylist(), 4)
    drawn = [shard["completions"] for shard in shards]
    scored = [score(store, reward_model, artifact, artifact.digest[:9]).stats["scored"] for artifact in drawn]
    assert sum(scored) == missing > 0
    assert split(store, reward_model, whole, ids, ScoringConfig(), shards=2) == []

    sampled = sample_completions.options["split"](store, policy, prompts(store), sampling, shards=2)
    assert sum(shard["prompts"].rows for shard in sampled) == 2  # the last two prompts have 3 of their 4 completions


def score_texts(reward_model: Artifact, store: Store, texts: dict[tuple[str, int], str]) -> dict:
    from tasks.data.prompt_table import PromptTable
    from tasks.rewards.reward_model import RewardModel

    messages, model = PromptTable(prompts(store)), RewardModel(Path(reward_model.uri), ScoringConfig())
    found = model.score([messages[id_] for id_, _ in texts], list(texts.values()))
    return dict(zip(texts, found.tolist(), strict=True))


def all_pairs(rewards: dict[tuple[str, int], float], tau: float, eta: float) -> list:
    """Return every pair of one prompt with sigma(gap / tau) > eta, by the definition."""
    import math

    least = tau * math.log(eta / (1 - eta))
    return [(a, b) for a in rewards for b in rewards if a[0] == b[0] and rewards[a] - rewards[b] > least]
