from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pytest

from tasks.store.artifacts import Artifact, DamagedArtifactError, Provenance
from tasks.store.cover import select_slices
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable, part_name
from tasks.store.manifests import read_files
from tasks.store.parquet import read_table
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import Slice, commit_slices, read_slices

K = 2
DAMAGES = ["flip", "truncate", "delete"]
EVERY_STORE = pytest.mark.parametrize("store_uri", ["file", "s3", "moto"], indirect=True)


def rewards(*prompt_ids: str) -> pa.Table:
    """K rewards a prompt; a prompt's rewards are its own wherever it is stored."""
    rows = [
        {"prompt_id": prompt_id, "completion_id": i, "reward": ord(prompt_id) + i / 2}
        for prompt_id in prompt_ids
        for i in range(K)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["rewards"])


def growing(store: Store, key: str = "a" * 64) -> GrowingTable:
    return GrowingTable(store, "rewards", Provenance(stage="rewards", version=1, key=key))


def draft(store: Store, key: str = "d" * 64) -> Draft:
    return Draft(store, Provenance(stage="score_completions", version=1, key=key))


def fill(store: Store, *parts: str, key: str = "a" * 64) -> list[Artifact]:
    """Append one part for each string, a letter a prompt."""
    table = growing(store, key)
    return [table.append(f"{i:02}", rewards(*letters)) for i, letters in enumerate(parts)]


def select(parts: Iterable[Artifact], wanted: Iterable[str], k: int = K) -> tuple[list[Slice], set[str]]:
    """Select the first k completions of prompts; return the slices and the prompts of which some are missing."""
    selection = select_slices(parts, dict.fromkeys(wanted, frozenset(range(k))))
    return selection.slices(), set(selection.missing)


def prompts_of(slices: list[Slice]) -> list[list[str]]:
    return [sorted(set(slice_.read()["prompt_id"].to_pylist())) for slice_ in slices]


def test_a_part_is_found_by_name_and_read(store):
    table = growing(store)
    assert list(table.parts()) == []
    part = table.append("one", rewards("p", "q"), engine="vllm")
    assert part == table.find("one")
    assert (part.kind, part.rows, part.stats) == ("rewards", 4, {"engine": "vllm"})
    assert part.digest == format_digest(rows_digest(rewards("q", "p")))
    assert read_table(part).equals(rewards("p", "q"))
    assert store.folder_of(part) == f"tables/rewards/{'a' * 64}/one"
    assert table.find("two") is None


def test_tables_with_other_keys_are_apart(store):
    fill(store, "p")
    assert list(growing(store, "b" * 64).parts()) == []


@EVERY_STORE
def test_parts_come_in_the_order_of_their_names(store):
    table = growing(store)
    for name in ("c", "a", "b"):
        table.append(name, rewards(name))
    assert [part.uri.rsplit("/", 1)[1] for part in table.parts()] == ["a", "b", "c"]


@EVERY_STORE
@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_parts_are_passed_over(store, how, damage):
    good, bad = fill(store, "pq", "rs")
    damage(f"{bad.uri}/{read_files(bad)['rows.parquet'].path}", how)
    assert list(growing(store).parts()) == [good]
    assert growing(store).append("01", rewards("r", "s")) == bad
    assert list(growing(store).parts()) == [good, bad]


def test_rows_of_another_shape_are_not_stored(store):
    with pytest.raises((pa.ArrowInvalid, KeyError)):
        growing(store).append("one", rewards("p").drop_columns("reward"))
    assert list(growing(store).parts()) == []


@pytest.mark.parametrize("name", [".DS_Store", "notes (1).txt"])
def test_a_stray_file_is_no_part(tmp_path, name):
    store = Store(str(tmp_path))
    parts = fill(store, "p")
    (tmp_path / "tables" / "rewards" / ("a" * 64) / name).write_text("")
    assert list(growing(store).parts()) == parts


# Slices


def test_slices_cover_the_wanted_prompts_and_name_the_missing(store):
    parts = fill(store, "ab", "cd", "ef")
    slices, missing = select(parts, set("abcx"))
    assert missing == {"x"}
    assert slices == [Slice(parts[0]), Slice(parts[1], frozenset("c"))]
    assert prompts_of(slices) == [["a", "b"], ["c"]]


def test_nothing_wanted_and_nothing_stored(store):
    assert select(fill(store, "ab"), set()) == ([], set())
    assert select([], {"a"}) == ([], {"a"})


def test_a_prompt_that_two_parts_hold_counts_once(store):
    slices, missing = select(fill(store, "abc", "bcd", "d"), set("abcd"))
    assert not missing
    assert prompts_of(slices) == [["a", "b", "c"], ["d"]]
    rows = pa.concat_tables([slice_.read() for slice_ in slices])
    assert set(Counter(rows["prompt_id"].to_pylist()).values()) == {K}


def test_every_row_of_a_wanted_prompt_is_read(store):
    part = growing(store).append("one", pa.concat_tables([rewards("a"), rewards("b"), rewards("a")]))
    assert Slice(part, frozenset("a")).read()["completion_id"].to_pylist() == [0, 1, 0, 1]
    assert Slice(part, frozenset()).read().num_rows == 0


@EVERY_STORE
def test_committed_slices_are_read_back(store):
    slices, _ = select(fill(store, "ab", "cd", "ef"), set("abc"))
    artifact = commit_slices(draft(store), "rewards", slices, {"scored": 6})
    assert artifact == draft(store).find()
    assert (artifact.kind, artifact.rows, artifact.stats) == ("rewards", 6, {"scored": 6})
    assert artifact.digest == format_digest(rows_digest(rewards("c", "b", "a")))
    again = read_slices(store, artifact)
    assert [slice_.prompt_ids for slice_ in again] == [None, frozenset("c")]
    assert pa.concat_tables([slice_.read() for slice_ in again]).equals(rewards("a", "b", "c"))


def test_slices_have_one_digest_however_they_are_cut(store):
    cuts = [("abcd",), ("ab", "cd"), ("dc", "b", "a"), ("abx", "cdy"), ("abc", "bcd")]
    artifacts = []
    for number, parts in enumerate(cuts):
        slices, missing = select(fill(store, *parts, key=f"{number:064}"), set("abcd"))
        assert not missing
        artifacts.append(commit_slices(draft(store, f"{number:064}"), "rewards", slices, {}))
    assert {artifact.digest for artifact in artifacts} == {format_digest(rows_digest(rewards(*"abcd")))}
    assert {artifact.rows for artifact in artifacts} == {4 * K}
    other, _ = select(fill(store, "abc", key="f" * 64), set("abc"))
    assert commit_slices(draft(store, "e" * 64), "rewards", other, {}).digest != artifacts[0].digest


@pytest.mark.parametrize(
    ("name", "how"),
    [*(("rows.parquet", how) for how in DAMAGES), ("manifest.json", "truncate"), ("manifest.json", "delete")],
)
def test_slices_with_a_damaged_part_are_not_found(store, name, how, damage):
    parts = fill(store, "ab", "cd")
    artifact = commit_slices(draft(store), "rewards", [Slice(parts[0]), Slice(parts[1], frozenset("c"))], {})
    assert draft(store).find() == artifact
    path = name if name == "manifest.json" else read_files(parts[1])[name].path
    damage(f"{parts[1].uri}/{path}", how)
    assert draft(store).find() is None
    first, second = read_slices(store, artifact)
    assert first.read().equals(rewards("a", "b"))
    with pytest.raises(DamagedArtifactError, match="run again"):
        second.read()


def test_slices_of_a_part_that_was_replaced_are_refused(store):
    (part,) = fill(store, "ab")
    artifact = commit_slices(draft(store), "rewards", [Slice(part)], {})
    store.delete(store.folder_of(part))
    growing(store).append("00", rewards("a", "c"))
    assert draft(store).find() is None
    with pytest.raises(DamagedArtifactError, match="now holds"):
        read_slices(store, artifact)[0].read()


def test_the_first_writer_of_a_part_stays(store):
    first = growing(store).append("00", rewards("a"))
    assert growing(store).append("00", rewards("a", "c")) == first
    assert set(read_table(first)["prompt_id"].to_pylist()) == {"a"}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_list_of_slices_is_noticed(store, how, damage):
    artifact = commit_slices(draft(store), "rewards", [Slice(part) for part in fill(store, "ab")], {})
    damage(f"{artifact.uri}/{read_files(artifact)['slices.json'].path}", how)
    assert draft(store).find() is None
    with pytest.raises(DamagedArtifactError, match=r"slices\.json"):
        read_slices(store, artifact)


def test_slices_that_were_read_can_be_committed_again(store):
    first = commit_slices(draft(store), "rewards", [Slice(part) for part in fill(store, "ab", "cd")], {})
    second = commit_slices(draft(store, "e" * 64), "rewards", read_slices(store, first), {})
    assert second.digest == first.digest
    assert second.rows == first.rows == 4 * K


def test_a_part_s_digest_is_that_of_the_rows_as_stored(tmp_path):
    wide = pa.table({"prompt_id": ["a"], "completion_id": [0], "reward": [0.1]})  # float64; stored as float32
    part = growing(Store(str(tmp_path))).append("one", wide)
    assert Slice(part).measure() == Slice(part, frozenset("a")).measure()


def test_a_part_is_named_by_its_prompts_in_any_order():
    assert part_name(["p", "q"]) == part_name(["q", "p"])
    assert len({part_name(ids) for ids in ([], ["p"], ["q"], ["p", "q"], ["pq"], ["p,q"])}) == 6
