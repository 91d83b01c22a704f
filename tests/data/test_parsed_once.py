"""A first run parses its prompts once, and renders and tokenizes each once for models of one tokenizer."""

import pytest
from loaded import asked, draft, id_of, ids, load, no_held_out, write

from tasks.config.data import DataConfig
from tasks.data import read_once, tally
from tasks.data.conversations import BadRow
from tasks.data.records import Record
from tasks.models import demands
from tasks.models.demands import Reader, as_read_by
from tasks.prompts import find_data, load_held_out, load_prompts
from tasks.store.artifacts import NOTHING
from tasks.store.parquet import read_table

ROWS = [
    {"prompt": "fine 1", "completion": "human", "id": 7, "score": 3},
    {"prompt": None},
    *asked(f"Question {n % 40}?" for n in range(60)),
    {"prompt": "  "},
    {"prompt": "word " * 600},
    {"prompt": 7},
]
SETTINGS = {"evaluation_fraction": 0.3, "max_bad_fraction": 0.5, "system_prompt": "Be kind."}


@pytest.fixture
def parsed(monkeypatch) -> list[object]:
    """Return the rows that are parsed, in order."""
    found, parse = [], tally.parse_record
    monkeypatch.setattr(tally, "parse_record", lambda values, role: (found.append(values), parse(values, role))[1])
    return found


def test_a_first_run_parses_each_row_once(tmp_path, local, policy, parsed):
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", ROWS), **SETTINGS)
    held_out, prompts = load(local, policy, data)
    assert len(parsed) == len(ROWS)
    assert len(ids(held_out) | ids(prompts)) == 41


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_kept_rows_load_as_parsed_ones_do(tmp_path, local, policy, monkeypatch, capsys, size):
    monkeypatch.setattr(read_once, "ROWS_AT_ONCE", size)
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", ROWS), **SETTINGS)
    held_out, kept = load(local, policy, data)
    said = capsys.readouterr().out
    files = find_data(local, data)
    parsed = load_prompts.body(draft(local), files.prompts, held_out, policy, NOTHING, data, 16)
    assert read_table(kept).equals(read_table(parsed))
    assert (kept.digest, kept.stats) == (parsed.digest, parsed.stats)
    assert list(kept.stats["bad"]) == list(parsed.stats["bad"]), "the reasons in the order of their first rows"
    assert kept.stats["bad"]["missing prompt"] == 1
    assert said == said.partition("\n")[0] + "\n" + capsys.readouterr().out  # the held-out rows', then the same again
    assert "columns not read: score" in said


def test_bad_rows_are_told_with_their_lines_from_kept_rows_too(tmp_path, local, policy):
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", ROWS), **(SETTINGS | {"max_bad_fraction": 0.05}))
    files = find_data(local, data)
    load_held_out.body(draft(local), files.prompts, policy, NOTHING, data, 16)
    held_out = no_held_out(local)
    with pytest.raises(ValueError, match="4 of 65 rows are bad") as caught:
        load_prompts.body(draft(local), files.prompts, held_out, policy, NOTHING, data, 16)
    assert "missing prompt: 1 (first a.jsonl line 2)" in str(caught.value)
    assert "prompt is not text: 1 (first a.jsonl line 65)" in str(caught.value)


def test_rows_are_kept_for_the_same_data_and_for_one_reader(tmp_path, local, policy, parsed):
    first, other = (DataConfig(prompts=write(tmp_path / f"{n}.jsonl", asked("abcdefgh")), **SETTINGS) for n in "ab")
    load_held_out.body(draft(local), find_data(local, first).prompts, policy, NOTHING, first, 16)
    nothing = no_held_out(local)
    for data, more in ((other, 8), (first, 0), (first, 8)):
        before = len(parsed)
        prompts = load_prompts.body(draft(local), find_data(local, data).prompts, nothing, policy, NOTHING, data, 16)
        assert len(parsed) - before == more
        assert read_table(prompts)["source"].unique().to_pylist() == [data.prompts.path.rsplit("/", 1)[1]]
        assert ids(prompts) <= {id_of(text, "Be kind.") for text in "abcdefgh"}
    write(tmp_path / "a.jsonl", asked("abcdefgh"))
    load_held_out.body(draft(local), find_data(local, first).prompts, policy, NOTHING, first, 16)
    write(tmp_path / "a.jsonl", asked("abcdefghi"))
    before = len(parsed)
    load_prompts.body(draft(local), find_data(local, first).prompts, nothing, policy, NOTHING, first, 16)
    assert len(parsed) - before == 9, "other content at the same place"


def test_a_prompt_is_tokenized_once_for_two_readers_of_one_model(policy, monkeypatch):
    texts, encode = [], demands.encode
    monkeypatch.setattr(demands, "encode", lambda tokenizer, text: (texts.append(text), encode(tokenizer, text))[1])
    as_read = as_read_by([Reader("policy", policy, reads_answers=False), Reader("reward model", policy)], 16)
    for text in ("one", "two"):
        as_read(Record([{"role": "user", "content": text}]))
    assert [("one" in text, "two" in text) for text in texts] == [(True, False), (False, True)]


def test_the_reader_with_less_room_refuses_what_the_other_takes(policy):
    """A reward model reads the end of the last turn too: its room is a few tokens smaller."""
    as_read = as_read_by([Reader("policy", policy, reads_answers=False), Reader("reward model", policy)], 16)
    reasons = []
    for length in range(200, 520):
        try:
            as_read(Record([{"role": "user", "content": "a " * length}]))
        except BadRow as error:
            reasons.append(error.reason)
    names = [reason.partition("'s context")[0] for reason in dict.fromkeys(reasons)]
    assert names == ["longer than the reward model", "longer than the policy"]
