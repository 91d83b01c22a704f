"""Data in: real HH files and hand-made ones, the split by prompt, what is dropped and under which reason."""

import gzip
import io
import json
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource, ModelSource
from tasks.config.settings import DataConfig
from tasks.data.added_prompts import added_table, append_prompts, find_added, read_added
from tasks.data.prompt_table import PromptTable, hash_fraction
from tasks.data.records import prompt_id
from tasks.data.tally import Tally, read_records
from tasks.import_model import model_files
from tasks.prompts import collect_prompts, find_data, load_evaluation_prompts, load_held_out, load_prompts
from tasks.store.artifacts import NOTHING, Artifact, DamagedArtifactError, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store, read_files
from tasks.store.parquet import conversation_files, read_table
from tasks.store.schemas import SCHEMAS, rows_digest
from tasks.training_data import load_demonstrations, load_preferences

NUMBERS = count()
TOO_LONG = "longer than the policy's context less max_new_tokens"


@pytest.fixture(scope="module")
def policy(test_data, tmp_path_factory):
    """Return the story model as it is imported: with a chat template, context 512."""
    source = ModelSource(path=str(test_data / "stories260k"))
    folder = tmp_path_factory.mktemp("policy")
    for name, content in model_files(test_data / "stories260k", source, "policy").items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return Artifact(kind="model", uri=str(folder), digest="policy")


@pytest.fixture
def local(tmp_path):
    return Store(str(tmp_path / "store"))


def draft(store, stage):
    return Draft(store, Provenance(stage=stage, version=1, key=f"key{next(NUMBERS)}"))


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def asked(texts):
    return [{"prompt": text} for text in texts]


def id_of(text, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    return prompt_id([*messages, {"role": "user", "content": text}])


def load(store, policy, data, max_new_tokens=16):
    """Return the held-out and the training prompts, as the flow loads them."""
    files = find_data(store, data)
    source = files.evaluation_prompts or files.prompts
    held_out = load_held_out.body(draft(store, "held_out"), source, policy, NOTHING, data, max_new_tokens)
    prompts = load_prompts.body(draft(store, "prompts"), files.prompts, held_out, policy, NOTHING, data, max_new_tokens)
    return held_out, prompts


def compared(store, data, held_out):
    """Return the prompts that the policies are compared on, as the flow takes them."""
    source, limit = find_data(store, data).prompts, data.max_evaluation_prompts
    given = load_evaluation_prompts.options["given"](held_out, limit)
    return given or load_evaluation_prompts.body(draft(store, "evaluation"), source, held_out, limit)


def ids(artifact):
    return set(PromptTable(artifact).ids)


# Real files


@pytest.mark.parametrize(
    ("name", "rows", "differ", "identical", "empty"),
    [("harmless-base", 2312, 5, 0, 4), ("helpful-base", 2354, 9, 2, 4)],
)
def test_hh_files(test_data, local, policy, name, rows, differ, identical, empty):
    path = str(test_data / f"hh-rlhf/{name}_test.jsonl.gz")
    data = DataConfig(prompts=path, preferences=path, demonstrations=path, max_bad_fraction=0.5)
    files = find_data(local, data)
    assert files.prompts.digest == files.preferences.digest != ""
    assert files.evaluation_prompts is NOTHING
    held_out, prompts = load(local, policy, data, 64)
    preferences = load_preferences.body(draft(local, "preferences"), files.preferences, held_out, NOTHING, data)
    demonstrations = load_demonstrations.body(
        draft(local, "demonstrations"), files.demonstrations, held_out, NOTHING, data
    )

    expected = {"prompts differ": differ, "chosen equals rejected": identical}
    bad = preferences.stats["bad"]
    assert {reason: bad.get(reason, 0) for reason in expected} == expected
    assert bad.get("empty chosen", 0) + bad.get("empty rejected", 0) == empty
    assert preferences.stats["read"] == rows
    left = preferences.stats["left_out"]
    assert rows == preferences.rows + sum(bad.values()) + sum(left.values())
    assert 0.07 < left["held out for evaluation"] / rows < 0.13

    assert not ids(held_out) & ids(prompts)
    for artifact in (preferences, demonstrations):
        table = read_table(artifact)
        assert table.schema == SCHEMAS[artifact.kind]
        assert not ids(held_out) & set(table["prompt_id"].to_pylist())
        assert not [id_ for id_ in table["prompt_id"].to_pylist() if hash_fraction(id_) < 0.1]
    for artifact in (held_out, prompts):
        table = read_table(artifact)
        assert len(set(table["prompt_id"].to_pylist())) == artifact.rows
        assert any(len(messages) > 1 for messages in table["messages"].to_pylist())
        assert all(messages[-1]["role"] == "user" for messages in table["messages"].to_pylist())
        assert all(prompt_id(row["messages"]) == row["prompt_id"] for row in table.to_pylist())
    assert prompts.stats["bad"][f"{TOO_LONG} (448 tokens)"] > 10


def test_hh_prompts_too_long_for_the_context_stop_the_run(test_data, local, policy):
    data = DataConfig(prompts=str(test_data / "hh-rlhf/harmless-base_test.jsonl.gz"))
    with pytest.raises(ValueError, match=TOO_LONG) as caught:
        load_prompts.body(draft(local, "prompts"), NOTHING, no_held_out(local), policy, NOTHING, data, 64)
    assert "harmless-base_test.jsonl.gz line" in str(caught.value)
    assert local.list("prompts") == []


def no_held_out(store):
    return draft(store, "held_out").commit("prompts", {}, "none")


# The split


def test_each_prompt_once_and_the_first_wins(tmp_path, local, policy):
    rows = [
        {"prompt": "a", "completion": "first", "id": 7},
        {"prompt": "a", "completion": "second"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "third"}]},
        {"prompt": "b"},
        {"prompt": "c", "chosen": "kept", "rejected": "no"},
    ]
    path = write(tmp_path / "prompts.jsonl", rows)
    other = write(tmp_path / "evaluation.jsonl", asked(["x"]))
    _, prompts = load(local, policy, DataConfig(prompts=path, evaluation_prompts=other))
    found = read_table(prompts)
    assert found.schema == SCHEMAS["prompts"]
    rows = {row["prompt_id"]: row for row in found.to_pylist()}
    assert set(rows) == {id_of("a"), id_of("b"), id_of("c")}
    assert rows[id_of("a")]["reference_completion"] == "first"
    assert rows[id_of("a")]["metadata"] == '{"id":7}'
    assert rows[id_of("b")]["reference_completion"] is None
    assert rows[id_of("c")]["reference_completion"] == "kept"
    assert {row["source"] for row in rows.values()} == {"prompts.jsonl"}
    assert prompts.stats == {"read": 5, "bad": {}, "left_out": {"duplicate": 2}}


def test_the_split_is_stable_when_rows_are_added(tmp_path, local, policy):
    small, large = [f"Question {n}?" for n in range(150)], [f"Question {n}?" for n in range(-50, 300)]
    first = load(local, policy, DataConfig(prompts=write(tmp_path / "a.jsonl", asked(small)), evaluation_fraction=0.2))
    later = load(
        local, policy, DataConfig(prompts=write(tmp_path / "b.jsonl", asked(large[::-1])), evaluation_fraction=0.2)
    )
    known = {id_of(text) for text in small}
    assert ids(later[0]) & known == ids(first[0])
    assert ids(later[1]) & known == ids(first[1])
    assert ids(first[0]) | ids(first[1]) == known
    assert not ids(later[0]) & ids(later[1])
    assert 40 < len(ids(later[0])) < 100  # a fifth of 350
    assert len(ids(later[0])) + len(ids(later[1])) == 350


def test_a_larger_share_holds_out_more_of_the_same(tmp_path, local, policy):
    path = write(tmp_path / "a.jsonl", asked(f"Question {n}?" for n in range(100)))
    some, more = (load(local, policy, DataConfig(prompts=path, evaluation_fraction=share))[0] for share in (0.1, 0.4))
    assert ids(some) < ids(more)


def test_held_out_prompts_are_in_nothing_that_is_trained_on(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(60)]
    pairs = [{"prompt": text, "chosen": "yes", "rejected": "no"} for text in texts]
    path = write(tmp_path / "pairs.jsonl", pairs)
    data = DataConfig(prompts=path, demonstrations=path, preferences=path, evaluation_fraction=0.3)
    held_out, prompts = load(local, policy, data)
    demonstrations = load_demonstrations.body(draft(local, "d"), NOTHING, held_out, NOTHING, data)
    preferences = load_preferences.body(draft(local, "p"), NOTHING, held_out, NOTHING, data)
    every = {id_of(text) for text in texts}
    for artifact in (demonstrations, preferences):
        assert set(read_table(artifact)["prompt_id"].to_pylist()) == ids(prompts) == every - ids(held_out)
        assert artifact.stats["left_out"] == {"held out for evaluation": held_out.rows}
    assert 5 < held_out.rows < 35
    assert read_table(preferences).select(["chosen", "rejected"]).to_pylist()[0] == {"chosen": "yes", "rejected": "no"}


def test_named_evaluation_prompts_leave_training(tmp_path, local, policy):
    path = write(tmp_path / "a.jsonl", asked(["a", "b", "c", "d"]))
    other = write(tmp_path / "b.jsonl", asked(["b", "x"]))
    held_out, prompts = load(local, policy, DataConfig(prompts=path, evaluation_prompts=other))
    assert ids(held_out) == {id_of("b"), id_of("x")}
    assert ids(prompts) == {id_of("a"), id_of("c"), id_of("d")}
    assert prompts.stats["left_out"] == {"held out for evaluation": 1}


def test_evaluation_on_a_few_trains_on_none_of_the_held_out(tmp_path, local, policy):
    path = write(tmp_path / "a.jsonl", asked(f"Question {n}?" for n in range(100)))
    whole = load(local, policy, DataConfig(prompts=path, evaluation_fraction=0.3))
    few = load(local, policy, DataConfig(prompts=path, evaluation_fraction=0.3, max_evaluation_prompts=3))
    assert [artifact.digest for artifact in few] == [artifact.digest for artifact in whole]
    asked_of = compared(local, DataConfig(prompts=path, max_evaluation_prompts=3), few[0])
    assert PromptTable(asked_of).ids == PromptTable(few[0]).ids[:3]
    for enough in (30, 31, None):
        assert compared(local, DataConfig(prompts=path, max_evaluation_prompts=enough), few[0]) == few[0]


def test_a_file_s_name_is_not_in_the_digest_of_its_prompts(tmp_path, local, policy):
    rows = asked(f"Question {n}?" for n in range(30))
    stores = [Store(str(tmp_path / name)) for name in "ab"]
    made = [load(s, policy, DataConfig(prompts=write(tmp_path / f"{s.uri[-1]}.jsonl", rows))) for s in stores]
    assert [artifact.digest for artifact in made[0]] == [artifact.digest for artifact in made[1]]
    assert [read_table(both[0])["source"].unique().to_pylist() for both in made] == [["a.jsonl"], ["b.jsonl"]]


def test_max_prompts_takes_the_first_after_the_split(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(50)]
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", asked(texts)), evaluation_fraction=0.3, max_prompts=7)
    _, prompts = load(local, policy, data)
    expected = [id_of(text) for text in texts if hash_fraction(id_of(text)) >= 0.3][:7]
    assert PromptTable(prompts).ids == expected


def test_the_system_prompt_is_part_of_the_prompt(tmp_path, local, policy):
    own = [{"role": "system", "content": "Own."}, {"role": "user", "content": "b"}]
    path = write(tmp_path / "a.jsonl", [{"prompt": "a"}, {"prompt": own}])
    other = write(tmp_path / "b.jsonl", asked(["x"]))
    data = DataConfig(prompts=path, evaluation_prompts=other, system_prompt="Be kind.")
    held_out, prompts = load(local, policy, data)
    table = PromptTable(prompts)
    assert ids(prompts) == {id_of("a", "Be kind."), id_of("b", "Own.")}
    assert table[id_of("a", "Be kind.")][0] == {"role": "system", "content": "Be kind."}
    assert ids(held_out) == {id_of("x", "Be kind.")}


def test_the_same_rows_give_the_same_digest(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(30)]
    there = tmp_path / "there"
    there.mkdir()
    one = load(local, policy, DataConfig(prompts=write(tmp_path / "a.jsonl", asked(texts)), evaluation_fraction=0.3))
    two = load(local, policy, DataConfig(prompts=write(there / "a.jsonl", asked(texts[::-1])), evaluation_fraction=0.3))
    assert [artifact.digest for artifact in one] == [artifact.digest for artifact in two]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_hash_fraction_is_a_share(text):
    assert 0 <= hash_fraction(text) < 1
    assert hash_fraction(text) == hash_fraction(text)


def test_hash_fraction_by_hand():
    # The first eight bytes of sha256("abc") are ba7816bf 8f01cfea.
    assert hash_fraction("abc") == 0xBA7816BF8F01CFEA / 2**64


def test_hash_fraction_is_even():
    fractions = [hash_fraction(str(n)) for n in range(4000)]
    assert sum(fraction < 0.25 for fraction in fractions) == pytest.approx(1000, abs=100)


# Bad rows

BAD = [
    {"prompt": "fine 1"},
    {"prompt": None},
    {"prompt": "  "},
    {"prompt": 7},
    {"prompt": "fine 2"},
    {"prompt": ""},
    {"prompt": "word " * 600},
]


def test_bad_rows_are_counted_under_their_reasons(tmp_path, local, policy):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", BAD), evaluation_prompts=other, max_bad_fraction=5 / 7)
    _, prompts = load(local, policy, data)
    assert prompts.rows == 2
    assert prompts.stats == {
        "read": 7,
        "bad": {
            "missing prompt": 1,
            "empty prompt": 2,
            "prompt is not text": 1,
            f"{TOO_LONG} (496 tokens)": 1,
        },
        "left_out": {},
    }


def test_too_many_bad_rows_name_the_reasons_and_the_first_rows(tmp_path, local, policy):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    path = write(tmp_path / "a.jsonl", BAD)
    with pytest.raises(ValueError, match=r"5 of 7 rows are bad, more than max_bad_fraction = 0.71") as caught:
        load(local, policy, DataConfig(prompts=path, evaluation_prompts=other, max_bad_fraction=0.71))
    message = str(caught.value)
    for piece in (
        path,
        "missing prompt: 1 (first a.jsonl line 2)",
        "empty prompt: 2 (first a.jsonl line 3)",
        "prompt is not text: 1 (first a.jsonl line 4)",
        "(first a.jsonl line 7)",
        "raise the fraction",
    ):
        assert piece in message
    assert local.list("prompts") == []


def test_the_default_drops_one_row_of_a_hundred(tmp_path, local, policy):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    good = asked(f"Question {n}?" for n in range(99))
    fine = write(tmp_path / "a.jsonl", [*good, {"prompt": ""}])
    assert load(local, policy, DataConfig(prompts=fine, evaluation_prompts=other))[1].rows == 99
    bad = write(tmp_path / "b.jsonl", [*good[:-1], {"prompt": ""}, {"prompt": ""}])
    with pytest.raises(ValueError, match="2 of 100 rows are bad"):
        load(local, policy, DataConfig(prompts=bad, evaluation_prompts=other))


def test_bad_preferences_are_counted(tmp_path, local):
    rows = [
        {"prompt": "a", "chosen": "x", "rejected": "y", "margin": 2},
        {"prompt": "a", "chosen": "x", "rejected": "y", "margin": 2.0},
        {"prompt": "a", "chosen": "x", "rejected": "z"},
        {"prompt": "b", "chosen": "x", "rejected": "x"},
        {"prompt": "b", "chosen": "x", "rejected": None},
        {"prompt": "c", "chosen": "", "rejected": "x"},
    ]
    data = DataConfig(
        prompts="unused",
        evaluation_prompts="unused",
        preferences=write(tmp_path / "a.jsonl", rows),
        max_bad_fraction=0.5,
    )
    preferences = load_preferences.body(draft(local, "p"), NOTHING, no_held_out(local), NOTHING, data)
    assert preferences.stats["bad"] == {"chosen equals rejected": 1, "missing rejected": 1, "empty chosen": 1}
    assert preferences.stats["left_out"] == {"duplicate": 1}
    assert [(row["rejected"], row["margin"]) for row in read_table(preferences).to_pylist()] == [
        ("y", 2.0),
        ("z", None),
    ]


def test_no_usable_demonstrations(tmp_path, local):
    data = DataConfig(
        prompts="unused",
        evaluation_prompts="unused",
        demonstrations=write(tmp_path / "a.jsonl", [{"prompt": "a", "completion": ""}]),
        max_bad_fraction=1,
    )
    with pytest.raises(ValueError, match=r"a.jsonl has no usable demonstrations: .*empty completion"):
        load_demonstrations.body(draft(local, "d"), NOTHING, no_held_out(local), NOTHING, data)


@pytest.mark.parametrize("texts", [["a"], ["a", "a", "a"]])
def test_fewer_than_two_prompts(tmp_path, local, policy, texts):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    path = write(tmp_path / "a.jsonl", asked(texts))
    with pytest.raises(ValueError, match=r"a.jsonl has 1 usable prompts, at least 2 are needed"):
        load(local, policy, DataConfig(prompts=path, evaluation_prompts=other))


def test_no_held_out_prompt(tmp_path, local, policy):
    kept = [text for n in range(20) if hash_fraction(id_of(text := f"Question {n}?")) >= 0.5]
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", asked(kept)), evaluation_fraction=0.5)
    with pytest.raises(ValueError, match=r"no prompt is held out for evaluation: raise data.evaluation_fraction = 0.5"):
        load(local, policy, data)


def test_the_longest_prompt_that_fits(tmp_path, local, policy):
    # "<s>" and a template around it take some ids; "a" repeated takes one each.
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    data = DataConfig(
        prompts=write(tmp_path / "a.jsonl", asked(["b", *("a b " * n for n in range(200, 260))])),
        evaluation_prompts=other,
        max_bad_fraction=1,
    )
    fits = [load(local, policy, data, max_new_tokens)[1].rows for max_new_tokens in (8, 10, 12)]
    assert fits[0] > fits[1] > fits[2] > 2


def test_a_prompt_that_the_template_refuses(tmp_path, local, policy, test_data):
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    )
    source = ModelSource(path=str(test_data / "stories260k"), chat_template=str(template))
    folder = tmp_path / "policy"
    folder.mkdir()
    for name, content in model_files(test_data / "stories260k", source, "policy").items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    data = DataConfig(
        prompts=write(tmp_path / "a.jsonl", asked(["a", "b"])),
        evaluation_prompts=write(tmp_path / "b.jsonl", asked(["x"])),
        system_prompt="Be kind.",
    )
    with pytest.raises(ValueError, match="refused by the policy's chat template \\(no\\): 1"):
        load(local, Artifact(kind="model", uri=str(folder), digest="d"), data)


# Files


@pytest.mark.parametrize("role", ["prompts", "demonstrations", "preferences", "evaluation_prompts"])
def test_a_missing_file_of_any_role_is_found_first(tmp_path, local, role):
    good = write(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b", "chosen": "b", "rejected": "c"}])
    data = DataConfig(**{"prompts": good, role: str(tmp_path / "nothing.jsonl")})
    with pytest.raises(ConfigurationError, match=r"nothing.jsonl .*check the path"):
        find_data(local, data)


@pytest.mark.parametrize(
    ("role", "needs"),
    [("prompts", "`messages`"), ("demonstrations", "`completion`"), ("preferences", "`rejected`")],
)
def test_columns_that_do_not_serve_are_found_first(tmp_path, local, role, needs):
    good = write(tmp_path / "a.jsonl", [{"prompt": "a"}])
    bad = write(tmp_path / "b.jsonl", [{"title": "a", "answer": "b"}])
    with pytest.raises(ValueError, match=r"b.jsonl line 1 cannot serve as .* columns answer, title") as caught:
        find_data(local, DataConfig(**{"prompts": good, role: bad}))
    assert needs in str(caught.value)


def test_preferences_by_the_gold_reward_are_no_file(tmp_path, local):
    files = find_data(local, DataConfig(prompts=write(tmp_path / "a.jsonl", asked(["a"])), preferences="gold"))
    assert files.preferences is NOTHING
    assert files.demonstrations is NOTHING
    assert files.prompts


def test_the_digest_of_data_is_that_of_its_content(tmp_path, local):
    one, two = write(tmp_path / "a.jsonl", asked("ab")), write(tmp_path / "b.jsonl", asked("ab"))
    other = write(tmp_path / "c.jsonl", asked("ac"))
    digests = [find_data(local, DataConfig(prompts=path)).prompts.digest for path in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_malformed_line_stops_the_run_with_its_number(tmp_path, local, policy, suffix):
    text = b'{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": \n'
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    data = DataConfig(prompts=str(path), evaluation_prompts=write(tmp_path / "e.jsonl", asked(["x"])))
    with pytest.raises(ValueError, match=rf"a.{suffix} line 3 is not JSON"):
        load(local, policy, data)
    assert local.list("prompts") == []


# Prompts that were added to the store


def add(store, path):
    """Add the prompts of a file; return how many were new."""
    tally = Tally(path, 0.01)
    return append_prompts(store, collect_prompts(read_records(DataSource(path=path), "prompts", tally), tally))


def add_texts(store, folder, *texts):
    return add(store, write(folder / "added.jsonl", asked(texts)))


def test_added_prompts_load_as_those_of_a_file_do(tmp_path, local, policy):
    rows = [
        {"prompt": "a", "completion": "first", "id": 7},
        {"prompt": [{"role": "system", "content": "Own."}, {"role": "user", "content": "b"}], "chosen": "kept"},
        *asked(f"Question {n}?" for n in range(40)),
    ]
    path = write(tmp_path / "prompts.jsonl", rows)
    settings = {"evaluation_fraction": 0.3, "max_prompts": 20, "max_evaluation_prompts": 5, "system_prompt": "Be kind."}
    add(local, path)
    from_table = load(local, policy, DataConfig(prompts="added", **settings))
    from_file = load(local, policy, DataConfig(prompts=path, **settings))
    for one, other in zip(from_table, from_file, strict=True):
        assert read_table(one).equals(read_table(other))
        assert (one.digest, one.stats) == (other.digest, other.stats)
    assert from_table[1].rows == 20
    assert all(messages[0]["role"] == "system" for messages in read_table(from_table[1])["messages"].to_pylist())


def test_added_prompts_come_in_the_order_in_which_they_were_added(tmp_path, local, policy):
    texts = [f"Question {n}?" for n in range(30)]
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    for start in range(0, 30, 3):
        add_texts(local, tmp_path, *texts[start : start + 3])
    data = DataConfig(prompts="added", evaluation_prompts=other)
    assert PromptTable(load(local, policy, data)[1]).ids == [id_of(text) for text in texts]
    few = load(local, policy, data.model_copy(update={"max_prompts": 7}))[1]
    assert PromptTable(few).ids == [id_of(text) for text in texts[:7]]
    assert few.stats["left_out"] == {"beyond the configured number": 23}


def test_prompts_added_during_a_run_are_not_in_it(tmp_path, local, policy):
    add_texts(local, tmp_path, "a", "b")
    data = DataConfig(prompts="added", evaluation_prompts=write(tmp_path / "e.jsonl", asked(["x"])))
    before = find_data(local, data)
    add_texts(local, tmp_path, "c")
    held_out = load_held_out.body(draft(local, "held_out"), before.evaluation_prompts, policy, NOTHING, data, 16)
    prompts = load_prompts.body(draft(local, "prompts"), before.prompts, held_out, policy, NOTHING, data, 16)
    assert ids(prompts) == {id_of("a"), id_of("b")}
    after = find_data(local, data)
    assert after.prompts.digest != before.prompts.digest
    assert (before.prompts.rows, after.prompts.rows) == (2, 3)
    assert ids(load(local, policy, data)[1]) == {id_of("a"), id_of("b"), id_of("c")}


def test_the_digest_of_added_prompts_changes_only_with_them(tmp_path, local):
    add_texts(local, tmp_path, "a", "b")
    before = find_added(local)
    assert add_texts(local, tmp_path, "b", "a") == 0
    assert find_added(local) == before
    assert add_texts(local, tmp_path, "a", "c") == 1
    assert find_added(local).digest != before.digest


def test_a_prompt_in_two_parts_is_read_once(tmp_path, local, policy):
    one, two = Store(f"{local.uri}/one"), Store(f"{local.uri}/two")
    add_texts(one, tmp_path, "a", "b")
    add_texts(two, tmp_path, "b", "c")
    for store in (one, two):  # as two additions at the same time leave it
        part = next(iter(added_table(store).parts()))
        added_table(local).append(part.uri.rsplit("/", 1)[1], read_table(part))
    assert find_added(local).rows == 4
    data = DataConfig(prompts="added", evaluation_prompts=write(tmp_path / "e.jsonl", asked(["x"])))
    prompts = load(local, policy, data)[1]
    assert sorted(PromptTable(prompts).ids) == sorted(id_of(text) for text in "abc")
    assert prompts.stats == {"read": 4, "bad": {}, "left_out": {"duplicate": 1}}


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_part_that_is_damaged_later_is_not_read(tmp_path, local, how, damage):
    add_texts(local, tmp_path, "a", "b")
    found = find_added(local)
    part = next(iter(added_table(local).parts()))
    damage(f"{part.uri}/{read_files(part)['rows.parquet'].path}", how)
    with pytest.raises(DamagedArtifactError):
        list(read_added(found, Tally("added", 0)))
    with pytest.raises(DamagedArtifactError, match="delete it and add its prompts again"):
        find_added(local)


def test_a_pinned_part_that_holds_other_prompts_is_not_read(tmp_path, local):
    add_texts(local, tmp_path, "a", "b")
    found = find_added(local)
    part = next(iter(added_table(local).parts()))
    rest = read_table(part).slice(1)
    local.delete(local.folder_of(part))
    added_table(local).append(part.uri.rsplit("/", 1)[1], rest)
    with pytest.raises(DamagedArtifactError, match="now holds"):
        list(read_added(found, Tally("added", 0)))


def test_nothing_added_yet(local):
    with pytest.raises(ValueError, match=r"no prompts have been added .*`python -m flows.add_prompts FILE --store"):
        find_data(local, DataConfig(prompts="added"))


def test_added_prompts_that_the_model_cannot_complete(tmp_path, local, policy):
    add_texts(local, tmp_path, "a", "b", "word " * 600)
    data = DataConfig(prompts="added", evaluation_prompts=write(tmp_path / "e.jsonl", asked(["x"])))
    with pytest.raises(ValueError, match=rf"data.prompts = added: 1 of 3 rows are bad.*{TOO_LONG}") as caught:
        load(local, policy, data)
    assert f"(first added.jsonl prompt {id_of('word ' * 600)})" in str(caught.value)


def test_conversations_are_cut_into_files_by_rows_and_by_text(monkeypatch):
    monkeypatch.setattr("tasks.store.parquet.ROWS_PER_FILE", 3)
    monkeypatch.setattr("tasks.store.parquet.TEXT_PER_FILE", 10)
    rows = prompts_of_lengths(4, 6, 1, 1, 1, 1, 12, 2)  # 4 + 6 fill one; three ones the next; 12 is too long for any
    files, digest = conversation_files(rows, "prompts")
    read = [pq.read_table(io.BytesIO(content)) for content in files.values()]
    assert [[len(row["messages"][0]["content"]) for row in table.to_pylist()] for table in read] == [
        [4, 6],
        [1, 1, 1],
        [1],
        [12],
        [2],
    ]
    assert digest == rows_digest(pa.Table.from_pylist(rows, SCHEMAS["prompts"]).drop_columns("source"))


def prompts_of_lengths(*lengths):
    """Return rows whose conversations have so many characters."""
    return [
        {"prompt_id": f"p{i}", "messages": [{"role": "user", "content": "x" * n}], "source": "test"}
        for i, n in enumerate(lengths)
    ]


@pytest.mark.slow  # more than 2 GB of text
def test_more_prompt_text_than_an_arrow_array_holds(local):
    long = "y" * 2**22
    rows = [row | {"messages": [{"role": "user", "content": long}]} for row in prompts_of_lengths(*range(520))]
    rows[-1]["messages"] = [{"role": "user", "content": "the last"}]
    files, digest = conversation_files(rows, "prompts")
    artifact = draft(local, "prompts").commit("prompts", files, f"{digest:064x}", rows=len(rows))
    table = PromptTable(artifact)
    assert sum(len(row["messages"][0]["content"]) for row in rows) > 2**31
    assert table["p0"] == table["p518"] == [{"role": "user", "content": long}]
    assert table["p519"] == [{"role": "user", "content": "the last"}]
