"""Completions and rewards that grow in both directions: more prompts and more completions a prompt, in any order."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_groups import tokenizer as words

import tasks.sampling.completions
import tasks.sampling.drawing
from tasks.config.settings import Decoding, SamplingConfig, ScoringConfig
from tasks.data.records import prompt_id
from tasks.examples.world import write_base_model
from tasks.pairs import build_pairs
from tasks.rewards.scored import read_scored
from tasks.rewards.table import unscored
from tasks.sample import sample_completions
from tasks.sampling.completions import sample_slices
from tasks.sampling.drawing import Request, cut_into_parts, requests_for
from tasks.sampling.engines import TransformersEngine
from tasks.score import score_completions
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.cover import select_slices
from tasks.store.drafts import Draft
from tasks.store.folders import Store, read_files
from tasks.store.growing import GrowingTable, Slice, commit_slices, groups_of, read_slices, read_whole_prompts
from tasks.store.parquet import read_table, table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.training.dpo_examples import ExampleBuilder

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = 9
ID = ["prompt_id", "completion_id"]
IDS = ("prompt_id", "chosen_id", "rejected_id")
ORDER = [("prompt_id", "ascending"), ("completion_id", "ascending")]


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("policy")
    write_base_model(folder, seed=0)
    return Artifact(kind="model", uri=str(folder), digest="f" * 64)


@pytest.fixture(scope="module")
def reward_model(policy, tmp_path_factory) -> Artifact:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reward_model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(policy.uri, num_labels=1)
        torch.nn.init.normal_(model.score.weight, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy.uri).save_pretrained(folder)
    return Artifact(kind="model", uri=str(folder), digest="e" * 64)


def draft(store: Store, stage: str, key: str) -> Draft:
    return Draft(store, Provenance(stage=stage, version=1, key=key))


def prompts(store: Store, number: int = PROMPTS) -> Artifact:
    conversations = [[{"role": "user", "content": f"{'so ' * (n % 4)}is it {n} ?"}] for n in range(number)]
    rows = [{"prompt_id": prompt_id(messages), "messages": messages, "source": "test"} for messages in conversations]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    files = {"rows.parquet": table_bytes(table, "prompts")}
    return draft(store, "prompts", f"p{number}").commit("prompts", files, format_digest(rows_digest(table)))


def decoding(k: int, part_size: int = 2, engine: str = "transformers") -> Decoding:
    return Decoding(k=k, max_new_tokens=4, part_size=part_size, engine=engine)


def rows_of(slices: list[Slice]) -> list[dict]:
    return pa.concat_tables([slice_.read() for slice_ in slices]).sort_by(ORDER).to_pylist()


def files_of(store: Store) -> dict[str, int]:
    """Return the files of all completions with the nanosecond of their writing."""
    found = Path(store.root).glob("tables/completions/*/*/*/*.parquet")
    return {str(path): path.stat().st_mtime_ns for path in found}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def added(monkeypatch) -> list[tuple[int, int]]:
    """Seed and number of samples of each request that an engine got."""
    requests: list[tuple[int, int]] = []

    class Watched(TransformersEngine):
        def add(self, number, prompt, seed, count):
            requests.append((seed, count))
            super().add(number, prompt, seed, count)

    monkeypatch.setattr(
        tasks.sampling.completions, "open_engine", lambda model, how, _, trust: Watched(model, how, trust)
    )
    return requests


# More completions a prompt


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.slow)])
def test_k_may_grow_and_shrink(engine, policy, tmp_path):
    if engine == "vllm":
        pytest.importorskip("vllm")
    grown, whole = Store(str(tmp_path / "grown")), Store(str(tmp_path / "whole"))
    at_once, sampled = sample_slices(whole, policy, prompts(whole), decoding(4, engine=engine))
    assert sampled == PROMPTS
    few, _ = sample_slices(grown, policy, prompts(grown), decoding(2, engine=engine))
    more, sampled = sample_slices(grown, policy, prompts(grown), decoding(4, engine=engine))
    assert sampled == PROMPTS
    again, sampled = sample_slices(grown, policy, prompts(grown), decoding(2, engine=engine))
    assert sampled == 0
    assert rows_of(more) == rows_of(at_once)
    assert rows_of(again) == rows_of(few) == [row for row in rows_of(at_once) if row["completion_id"] < 2]
    assert sum(len(read_table(slice_.part)) for slice_ in more) == PROMPTS * 4, "nothing is drawn twice"
    fewer, _ = sample_slices(whole, policy, prompts(whole), decoding(3, engine=engine))
    assert rows_of(fewer) == [row for row in rows_of(at_once) if row["completion_id"] < 3]


def test_only_what_is_missing_is_asked_for(policy, store, added):
    sample_slices(store, policy, prompts(store), decoding(2))
    first = list(added)
    added.clear()
    sample_slices(store, policy, prompts(store), decoding(5))
    assert {count for _, count in first} == {2}
    assert sorted(added) == sorted((seed + 2, 3) for seed, _ in first)
    added.clear()
    sample_slices(store, policy, prompts(store, PROMPTS + 1), decoding(5))
    assert [count for _, count in added] == [5]


def test_new_parts_are_cut_as_those_that_hold_the_first_completions(policy, store):
    sample_slices(store, policy, prompts(store), decoding(2, part_size=4))
    sample_slices(store, policy, prompts(store), decoding(3, part_size=9))
    slices, _ = sample_slices(store, policy, prompts(store), decoding(6, part_size=2))
    groups = groups_of(slices)
    assert len(groups) == 3  # parts of 4, 4 and 1 prompts
    for table, group in zip(read_whole_prompts(slices), groups, strict=True):
        assert table.num_rows == sum(slice_.num_rows() for slice_ in group)
        assert set(Counter(table["prompt_id"].to_pylist()).values()) == {6}


@pytest.mark.parametrize("how", ["flip", "delete"])
def test_a_damaged_part_is_drawn_again_alone(how, policy, store, damage):
    for k in (2, 3, 5):
        slices, _ = sample_slices(store, policy, prompts(store), decoding(k))
    before, kept = rows_of(slices), files_of(store)
    middle = next(slice_.part for slice_ in slices if set(slice_.read()["completion_id"].to_pylist()) == {2})
    file = read_files(middle)["rows.parquet"].path
    damage(f"{middle.uri}/{file}", how)
    again, sampled = sample_slices(store, policy, prompts(store), decoding(5))
    assert rows_of(again) == before
    assert sampled == middle.rows
    now = files_of(store)
    assert {path for path in now if now[path] != kept.get(path)} == {store.path(f"{store.folder_of(middle)}/{file}")}


def test_pairs_and_groups_do_not_depend_on_how_completions_came(policy, reward_model, tmp_path):
    found = []
    for name, steps in (("grown", [(2, 2, 3), (3, 3, 7), (4, 1, PROMPTS)]), ("whole", [(4, 3, PROMPTS)])):
        store = Store(str(tmp_path / name))
        for k, part_size, number in steps:
            slices, _ = sample_slices(store, policy, prompts(store, number), decoding(k, part_size))
        drawn = commit_slices(draft(store, "sample", "s"), "completions", slices, {})
        scored = score(store, reward_model, drawn)
        pairs = build_pairs.body(draft(store, "pairs", "p"), scored, drawn, PairsConfig(tau=0.01, truncated="keep"))
        builder = ExampleBuilder(pairs, prompts(store), words(), 100)
        groups = pa.concat_tables(builder.build(store, drawn)).sort_by("prompt_id").to_pylist()
        figures = {name: value for name, value in pairs.stats.items() if name != "widest_gap_quantiles"}
        ids = sorted(zip(*(read_table(pairs)[name].to_pylist() for name in IDS), strict=True))
        found.append((drawn.digest, scored.rows, ids, figures, groups))
    assert found[0] == found[1]


# Rewards


def score(store: Store, reward_model: Artifact, drawn: Artifact, key: str = "r", number: int = PROMPTS) -> Artifact:
    out = draft(store, "score", key)
    return score_completions.body(out, reward_model, drawn, prompts(store, number), ScoringConfig())


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


def test_requests_are_runs_of_following_numbers():
    asked = requests_for({"a": frozenset({0, 1, 4, 6, 7}), "b": frozenset({3})})
    assert asked == [Request("a", 0, 2), Request("a", 4, 1), Request("a", 6, 2), Request("b", 3, 1)]


def completions(requests: list[Request]) -> pa.Table:
    rows = [
        {
            "prompt_id": own.prompt_id,
            "completion_id": number,
            "completion": f"{own.prompt_id} {number}",
            "token_ids": [number],
            "num_tokens": 1,
            "finish_reason": "stop",
        }
        for own in requests
        for number in range(own.first, own.first + own.number)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["completions"])


STEPS = st.lists(
    st.tuples(
        st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 6), st.integers(1, 4), st.integers(0, 9)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_history_gives_each_wanted_completion_once_and_whole_prompts_together(tmp_path_factory, steps):
    store = Store(str(tmp_path_factory.mktemp("store")))
    table = GrowingTable(store, "completions", Provenance(stage="completions", version=1, key="c" * 64))
    for step, (names, k, part_size, lost) in enumerate(steps):
        wanted = dict.fromkeys(sorted(names), frozenset(range(k)))
        selection = select_slices(table.parts(), wanted)
        requests = requests_for(selection.missing)
        lengths = dict.fromkeys(wanted, 1)
        for number, part in enumerate(cut_into_parts(requests, lengths, selection.begun, part_size)):
            selection.add(table.append(f"{step}-{number}", completions(part)), {own.prompt_id for own in part})
        slices = selection.slices()
        rows = pa.concat_tables([slice_.read() for slice_ in slices])
        every = sorted((name, number) for name in names for number in range(k))
        assert sorted(zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)) == every
        assert sum(slice_.num_rows() for slice_ in slices) == len(every)
        seen: set[str] = set()
        for rows in read_whole_prompts(slices, ["prompt_id"]):
            own = Counter(rows["prompt_id"].to_pylist())
            assert set(own.values()) == {k}
            assert not seen & own.keys()
            seen |= own.keys()
        parts = store.list(table.folder)
        if lost < len(parts):
            store.delete(f"{table.folder}/{parts[lost]}")


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
