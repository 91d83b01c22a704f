"""Files of data are found, or missed, before anything runs."""

import gzip

import pytest
from loaded import asked, load, write

from tasks.config.data import DataConfig
from tasks.config.errors import ConfigurationError
from tasks.prompts import find_data
from tasks.store.artifacts import NOTHING


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
