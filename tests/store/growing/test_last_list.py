"""The last run's list of slices as the start of the next one's: what need not be read, and when it does not serve."""

from collections import Counter

import pytest
from growing import PROMPTS, draft, prompts, rows_of, score

import tasks.store.cover
from tasks.config.settings import SamplingConfig, ScoringConfig
from tasks.rewards.table import rewards_table
from tasks.sample import sample_completions
from tasks.sampling.completions import completions_table
from tasks.sampling.last_list import LAST
from tasks.store.artifacts import Artifact
from tasks.store.compaction import LARGE, compact, compact_store
from tasks.store.folders import Store
from tasks.store.growing import replaced_by
from tasks.store.slices import completions_of, read_slices

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def read(monkeypatch) -> Counter[str]:
    """Count the parts whose rows are read to learn what they hold."""
    seen: Counter[str] = Counter()

    def counted(part: Artifact):
        seen[part.uri.rpartition("/")[2]] += 1
        return completions_of(part)

    monkeypatch.setattr(tasks.store.cover, "completions_of", counted)
    return seen


def sampling(k: int = 2) -> SamplingConfig:
    return SamplingConfig(k=k, max_new_tokens=4, part_size=2, engine="transformers")


def sample(store: Store, policy: Artifact, number: int, key: str, k: int = 2) -> Artifact:
    return sample_completions.body(
        draft(store, "sample_completions", key * 64), policy, prompts(store, number), sampling(k)
    )


def test_more_prompts_are_drawn_without_a_look_into_the_parts_of_the_others(store, policy, read, tmp_path):
    sample(store, policy, PROMPTS, "a")
    read.clear()
    grown = sample(store, policy, PROMPTS + 3, "b")
    assert not read
    assert grown.stats["sampled_prompts"] == 3
    whole = sample(Store(str(tmp_path / "whole")), policy, PROMPTS + 3, "b")
    assert (grown.digest, grown.rows) == (whole.digest, whole.rows)


def test_what_another_run_has_drawn_since_is_found_in_its_parts_alone(store, policy, read):
    first = sample(store, policy, PROMPTS, "a")
    last = (Store(store.uri).path(f"{completions_table(store, policy, sampling()).folder}/{LAST}"), store.fs)
    hint = last[1].cat_file(last[0])
    sample(store, policy, PROMPTS + 3, "b")
    last[1].pipe_file(last[0], hint)  # as if that run had not come to its end
    read.clear()
    again = sample(store, policy, PROMPTS + 3, "c")
    old = {slice_.part.uri.rpartition("/")[2] for slice_ in read_slices(store, first)}
    assert again.stats["sampled_prompts"] == 0
    assert len(read) == 2, "three prompts make two parts"
    assert not old & read.keys()


@pytest.mark.parametrize(
    "how", ["fewer prompts", "more completions", "no hint", "a damaged hint", "no list", "damaged"]
)
def test_a_last_list_that_does_not_serve_costs_a_look_into_the_parts_and_nothing_else(how, store, policy, damage):
    first = sample(store, policy, PROMPTS, "a")
    hint = f"{completions_table(store, policy, sampling()).uri}/{LAST}"
    number, k, drawn = PROMPTS, 2, 0
    if how == "fewer prompts":
        number = PROMPTS - 2
    elif how == "more completions":
        k, drawn = 3, PROMPTS
    elif how == "no list":
        store.delete(store.folder_of(first))
    elif how == "damaged":
        part = read_slices(store, first)[0].part
        damage(f"{part.uri}/manifest.json", "truncate")
        drawn = part.rows // 2
    else:
        damage(hint, "delete" if how == "no hint" else "truncate")
    again = sample(store, policy, number, "b", k)
    assert (again.rows, again.stats["sampled_prompts"]) == (number * k, drawn)
    texts = {(row["prompt_id"], row["completion_id"]): row for row in rows_of(read_slices(store, again))}
    assert len(texts) == number * k


def test_after_a_compaction_the_merged_part_is_listed_and_no_reward_is_computed_again(
    store, policy, reward_model, read
):
    drawn = sample(store, policy, PROMPTS, "a")
    scored = score(store, reward_model, drawn, "r1")
    table = completions_table(store, policy, sampling())
    (merged,) = compact(table, table.look(), LARGE, 1)
    read.clear()
    grown = sample(store, policy, PROMPTS + 1, "b")
    assert not read
    slices = read_slices(store, grown)
    assert [slice_.part.digest for slice_ in slices if slice_.part.uri == merged.uri] == [merged.digest]
    assert len(slices) == 2
    again = score(store, reward_model, grown, "r2", PROMPTS + 1)
    assert again.stats["scored"] == 2
    old, new = (rows_of(read_slices(store, own)) for own in (scored, again))
    assert [row for row in new if row in old] == old
    assert rewards_table(store, reward_model, ScoringConfig()).find(merged.digest[:32]).rows == merged.rows


def test_rewards_of_merged_completions_that_were_not_all_scored_are_completed(store, policy, reward_model):
    drawn = sample(store, policy, 4, "a")
    score(store, reward_model, drawn, "r1", 4)
    sample(store, policy, PROMPTS, "b")
    assert len(list(compact_store(store))) == 1
    grown = sample(store, policy, PROMPTS, "c")
    assert len(read_slices(store, grown)) == 1
    assert score(store, reward_model, grown, "r2").stats["scored"] == 2 * (PROMPTS - 4)
    assert score(store, reward_model, grown, "r3").stats["scored"] == 0


def test_a_run_that_finds_many_small_parts_merges_them(store, policy, monkeypatch):
    monkeypatch.setattr(tasks.store.compaction.compact, "__defaults__", (tasks.store.compaction.SMALL, 3))
    before = sample(store, policy, PROMPTS, "a")  # five parts
    after = sample(store, policy, PROMPTS, "b")
    (slice_,) = read_slices(store, after)
    assert len(replaced_by(completions_table(store, policy, sampling()).find(slice_.part.uri.rpartition("/")[2]))) == 5
    assert (after.digest, after.stats["sampled_prompts"]) == (before.digest, 0)
