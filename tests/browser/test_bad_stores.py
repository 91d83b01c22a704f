"""Stores with half a run, damage, hostile texts; and a store that goes away."""

import shutil
from pathlib import Path

import pytest
from browsed_store import PROMPTS_A_PART, Size, draft, model, prompts, write_run
from browsing import browse

from tasks.browser.filters import Filters
from tasks.browser.prompts import list_prompts, show_prompt
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import sha256_of
from tasks.store.folders import Store
from tasks.store.manifests import read_files
from tasks.store.parquet import read_table, table_bytes
from tasks.store.runs import RunRecord
from tasks.store.slices import Slice, commit_slices, read_slices

BIDI, NUL = "abc\u202edcba\u2066x", "a\x00b"
HOSTILE = [
    "<script>document.title = 'run'</script>",
    BIDI,
    NUL,
    "word" * 25_000,
    "</div><img src=x onerror=alert(1)>",
    "",
]


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def record(store, artifacts, finish=False):
    going = RunRecord.begin(store)
    for artifact in artifacts.values():
        going.note(store.folder_of(artifact))
    if finish:
        going.finish(artifacts)
    return going.run


def without(made, *names):
    return {name: artifact for name, artifact in made.items() if name not in names}


# Runs that have not everything


@pytest.mark.parametrize(
    "missing",
    [
        ("evaluation", "held_out"),
        ("pairs", "evaluation"),
        ("rewards", "pairs", "evaluation"),
        ("completions", "rewards", "pairs", "evaluation", "held_out"),
        ("prompts",),
        ("prompts", "policy", "reward_model", "completions", "rewards", "pairs", "evaluation", "held_out"),
    ],
)
def test_half_a_run_shows_what_it_has(store, missing):
    _, made = write_run(store, Size(5))
    browsed = browse(store, [(record(store, without(made, *missing)), made)])
    assert "in use" in browsed.client.get("/").text
    for page in ("", "/evaluation", "/lineage", "/export.jsonl", "/threshold?tau=1&eta=0.85"):
        assert browsed.get(page).status_code == 200, page
    listed = list_prompts(browsed.index(), Filters(), 0)
    assert listed.of == (0 if {"prompts", "completions"} <= set(missing) else 5)
    for row in listed.rows:
        assert browsed.get(f"/prompts/{row['prompt_id']}").status_code == 200
    assert browsed.client.get("/compare", params={"run": [browsed.runs[0].id] * 2}).status_code == 200


def test_a_run_under_way_grows(store):
    _, made = write_run(store, Size(5))
    going = RunRecord.begin(store)
    going.note(store.folder_of(made["prompts"]))
    browsed = browse(store, [(going.run, made)])
    assert list_prompts(browsed.index(), Filters(), 0).pairs == 0
    for name in ("completions", "rewards", "pairs"):
        going.note(store.folder_of(made[name]))
    assert list_prompts(browsed.index(), Filters(), 0).pairs == made["pairs"].rows


def test_a_store_without_runs(store, tmp_path):
    model(store, "train_sft", "alone")
    browsed = browse(store, [])
    assert "The store has no runs." in browsed.client.get("/").text


def test_a_stage_that_was_pruned(store):
    run, made = write_run(store, Size(5))
    store.delete(store.folder_of(made["pairs"]))
    browsed = browse(store, [(run, made)])
    assert browsed.get("").status_code == 200
    assert "not in the store" in browsed.get("/lineage").text


def test_an_evaluation_of_another_version_shows_what_was_said(store):
    _, made = write_run(store, Size(3))
    samples = read_table(made["evaluation"])
    data = table_bytes(samples, "evaluation")
    out = draft(store, "evaluate_policy", "older", prompts=made["held_out"])
    stats = {"prompts": 3, "reference": "sft", "policies": {"sft": {}, "aligned": {}}}
    older = out.commit("evaluation", {"samples.parquet": data}, sha256_of(data), rows=samples.num_rows, stats=stats)
    browsed = browse(store, [(record(store, {**made, "evaluation": older}), made)])
    page = browsed.get("/evaluation").text
    assert "those of another version" in page
    assert page.count("<article") == 3


def test_what_the_monitors_found_is_shown(store):
    _, made = write_run(store, Size(3))
    going = RunRecord.begin(store)
    going.note(store.folder_of(made["prompts"]))
    found = {"name": "reward_ties", "about": "", "level": "warn", "value": 0.7, "text": "ties are 0.7 <b>, above 0.5"}
    going.judge([found, {**found, "name": "kl", "level": "ok", "text": "KL is 1"}])
    browsed = browse(store, [(going.run, made)])
    page = browsed.get("").text
    assert "1 of 2 found something" in page
    assert "ties are 0.7 &lt;b&gt;, above 0.5" in page
    assert "1 of its monitors" in browsed.client.get("/").text


# Damage


@pytest.mark.parametrize(
    ("name", "told"), [("pairs", "Without pairs"), ("prompts", "Without prompts"), ("evaluation", "Without evaluation")]
)
def test_a_damaged_table_is_named_and_the_rest_is_shown(store, damage, name, told):
    run, made = write_run(store, Size(5))
    (entry,) = read_files(made[name]).values()
    damage(f"{made[name].uri}/{entry.path}", "flip")
    browsed = browse(store, [(run, made)])
    assert told in browsed.get("/evaluation" if name == "evaluation" else "").text
    assert list_prompts(browsed.index(), Filters(), 0).of == 5


def test_a_damaged_part_leaves_no_half_of_the_completions(store, damage):
    run, made = write_run(store, Size(PROMPTS_A_PART + 4, k=2))
    last = read_slices(store, made["completions"])[-1].part
    (entry,) = read_files(last).values()
    damage(f"{last.uri}/{entry.path}", "delete")
    browsed = browse(store, [(run, made)])
    assert "Without completions and rewards" in browsed.get("").text
    assert browsed.index().query("SELECT count(*) AS n FROM {db}.samples") == [{"n": 0}]
    assert browsed.index().gaps.count(1.0, 0.85).pairs == 0


def test_damaged_records_are_named(store, damage):
    run, made = write_run(store, Size(3))
    broken = record(store, made)
    damage(f"{store.uri}/runs/{broken.id}/manifest.json", "truncate")
    browsed = browse(store, [(run, made)])
    assert broken.id in browsed.client.get("/").text
    assert browsed.client.get(f"/runs/{broken.id}").status_code == 404


# Texts


@pytest.fixture
def hostile(store):
    """Every completion and prompt is one of `HOSTILE`."""
    texts = lambda number, seed: [HOSTILE[i % len(HOSTILE)] for i in range(number)]  # noqa: E731
    written = write_run(store, Size(6, k=6), questions=[text or "?" for text in HOSTILE], texts=texts)
    return browse(store, [written])


def test_hostile_texts_are_shown_as_text(hostile):
    for row in list_prompts(hostile.index(), Filters(), 0).rows:
        answer = hostile.get(f"/prompts/{row['prompt_id']}")
        assert answer.status_code == 200
        assert len(answer.content) < 500_000
        own = answer.text.replace("<script src", "")
        assert not any(bad in own for bad in ("<script", "<img", "\u202e", "\u2066", "\x00"))
        assert "\\u202e" in own
        assert "\\x00" in own
        assert "more characters" in own


def test_hostile_texts_are_found_and_exported(hostile):
    assert list_prompts(hostile.index(), Filters(text="<script>"), 0).number == 1
    assert list_prompts(hostile.index(), Filters(text=NUL), 0).number == 1
    assert list_prompts(hostile.index(), Filters(text="\u202e", within="completions"), 0).number == 6
    assert hostile.get("", text="<script>").text.count('value="&lt;script&gt;"') == 1
    exported = hostile.get("/export.jsonl").text
    assert exported.isascii()
    assert len(exported.splitlines()) == hostile.made[0]["pairs"].rows


# Other runs' rewards, and a store that goes


def test_rewards_of_other_models_are_shown(store):
    run, made = write_run(store, Size(3))
    other = model(store, "train_reward_model", "another")
    slices = read_slices(store, made["rewards"])
    parts = [
        Slice(slice_.part.model_copy(), frozenset(slice_.read()["prompt_id"].to_pylist()[:4])) for slice_ in slices
    ]
    inputs = {"reward_model": other, "completions": made["completions"]}
    commit_slices(draft(store, "score_completions", "another", **inputs), "rewards", parts, {})
    browsed = browse(store, [(run, made)])
    first = slices[0].read()["prompt_id"][0].as_py()
    (name,) = {name for row in show_prompt(browsed.index(), first)["completions"] for name in row["others"]}
    assert name == other.digest, "the run does not have its model"
    for row in show_prompt(browsed.index(), first)["completions"]:
        assert row["others"][name] == row["reward"]
    assert f"by {other.digest[:12]}" in browsed.get(f"/prompts/{first}").text


def test_a_store_that_goes_away(store):
    written = write_run(store, Size(5)), write_run(store, Size(4), "second", pairs=PairsConfig(tau=0.5))
    browsed = browse(store, list(written))
    prompt = list_prompts(browsed.index(), Filters(), 0).rows[0]["prompt_id"]
    shutil.rmtree(store.root)
    for page in ("", f"/prompts/{prompt}", "/evaluation", "/lineage", "/export.jsonl"):
        assert browsed.get(page).status_code == 200, "what was read stays"
    assert browsed.client.get(f"/runs/{browsed.runs[1].id}").status_code == 404
    assert "there is no store at" in browsed.client.get("/").text


def test_a_run_under_way_stays_when_its_store_goes_away(store):
    _, made = write_run(store, Size(5))
    browsed = browse(store, [(record(store, made), made)])
    assert browsed.get("").status_code == 200
    shutil.move(store.root, f"{store.root}-elsewhere")
    assert browsed.get("").status_code == 200, "what was read stays"
    shutil.move(f"{store.root}-elsewhere", store.root)
    assert list_prompts(browsed.index(), Filters(), 0).of == 5


def test_a_store_that_cannot_be_read(store):
    run, made = write_run(store, Size(2))
    browsed = browse(store, [(run, made)])
    shutil.rmtree(f"{store.root}/runs")
    Path(store.root, "runs").write_text("a file")
    answer = browsed.client.get("/")
    assert (answer.status_code, "cannot be read" in answer.text) == (503, True)


def test_the_oldest_run_is_put_away(store):
    written = [write_run(store, Size(2), f"run {number}") for number in range(6)]
    browsed = browse(store, written)
    for number in range(6):
        assert list_prompts(browsed.index(number), Filters(), 0).of == 2
    databases = browsed.index(5).query("SELECT count(*) AS n FROM duckdb_databases() WHERE database_name LIKE 'run_%'")
    assert databases == [{"n": 4}]
    assert list_prompts(browsed.index(0), Filters(), 0).of == 2


def test_prompts_in_another_shard(store):
    """A prompt of the run without completions is listed after the others."""
    run, made = write_run(store, Size(3))
    wider = prompts(store, "load_prompts", [f"Question {number}: what does the fox say?" for number in range(5)])
    browsed = browse(store, [(record(store, {**made, "prompts": wider}, finish=True), made)])
    listed = list_prompts(browsed.index(), Filters(), 0)
    assert [row["k"] for row in listed.rows] == [4, 4, 4, 0, 0]
    assert run.id != browsed.runs[0].id


def test_a_store_in_s3(s3_uri):
    run, made = write_run(Store(s3_uri), Size(3))
    browsed = browse(Store(s3_uri), [(run, made)])
    assert list_prompts(browsed.index(), Filters(), 0).pairs == made["pairs"].rows
    assert run.id in browsed.client.get("/").text
