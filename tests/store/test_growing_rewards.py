"""Rewards that grow with completions, however both are cut into parts."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from growing_tables import ORDER, PROMPTS, completions, decoding, draft, prompts, rows_of, score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tasks.sampling.completions
import tasks.sampling.drawing
from tasks.config.settings import SamplingConfig, ScoringConfig
from tasks.pairs import build_pairs
from tasks.rewards.scored import read_scored
from tasks.rewards.table import unscored
from tasks.sample import sample_completions
from tasks.sampling.completions import sample_slices
from tasks.sampling.drawing import Request
from tasks.score import score_completions
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.cover import select_slices
from tasks.store.folders import Store, read_files
from tasks.store.growing import GrowingTable, Slice, commit_slices, read_slices
from tasks.store.parquet import read_table

pytestmark = pytest.mark.usefixtures("one_thread")
ID = ["prompt_id", "completion_id"]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


# Rewards


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
    from tasks.rewards.scoring import RewardModel

    messages, model = PromptTable(prompts(store)), RewardModel(Path(reward_model.uri), ScoringConfig())
    found = model.score([messages[id_] for id_, _ in texts], list(texts.values()))
    return dict(zip(texts, found.tolist(), strict=True))


def all_pairs(rewards: dict[tuple[str, int], float], tau: float, eta: float) -> list:
    """Return every pair of one prompt with sigma(gap / tau) > eta, by the definition."""
    import math

    least = tau * math.log(eta / (1 - eta))
    return [(a, b) for a in rewards for b in rewards if a[0] == b[0] and rewards[a] - rewards[b] > least]


# Any history


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.permutations("abcdefgh"),
    scored=st.permutations("abcdefgh"),
    cuts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    named=st.booleans(),
    split=st.integers(0, 3),
)
def test_rewards_are_joined_by_ids_however_both_are_cut(tmp_path_factory, drawn, scored, cuts, named, split):
    """Three completions a prompt; the first `split` of some lie in parts of their own, as after k has grown."""
    store, k = Store(str(tmp_path_factory.mktemp("store"))), 3
    provenance = {kind: Provenance(stage=kind, version=1, key=kind) for kind in ("completions", "rewards")}
    table, selection = GrowingTable(store, "completions", provenance["completions"]), select_slices([], {})
    for number, start in enumerate(range(0, 8, cuts[0])):
        names = drawn[start : start + cuts[0]]
        for first, last in ((0, split), (split, k)):
            if last > first:
                rows = completions([Request(name, first, last - first) for name in names])
                selection.add(table.append(f"{number}-{first}", rows), names)
    parts = [slice_.part for slice_ in selection.slices()]
    table, slices = GrowingTable(store, "rewards", provenance["rewards"]), []
    for number, start in enumerate(range(0, 8, cuts[1])):
        rows = completions([Request(name, 0, k) for name in scored[start : start + cuts[1]]])
        numbers = [ord(name) + own / 8 for name, own in zip(*(rows[c].to_pylist() for c in ID), strict=True)]
        # Named by a part that it does not score, or by none: names only say where to look first.
        name = parts[number % len(parts)].digest[:32] + f"-{number}" if named else str(number)
        slices.append(Slice(table.append(name, rows.select(ID).append_column("reward", pa.array(numbers)))))
    artifacts = [
        commit_slices(draft(store, kind, kind), kind, own, {})
        for kind, own in (("completions", selection.slices()), ("rewards", slices))
    ]
    found = []
    for own, rewards in read_scored(store, *artifacts, [*ID, "completion"]):
        assert set(Counter(own["prompt_id"].to_pylist()).values()) == {k}
        gathered = own.select(ID).sort_by(ORDER)
        assert gathered == rewards.select(ID).sort_by(ORDER)
        found += rewards.to_pylist()
    assert all(row["reward"] == ord(row["prompt_id"]) + row["completion_id"] / 8 for row in found)
    assert len(found) == 8 * k
