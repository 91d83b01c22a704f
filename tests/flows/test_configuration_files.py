"""Configuration files, overrides and environment variables, and what cannot be read of them."""

import pytest
from command_lines import refused, write

from flows.config_files import load_config

GOOD = "data: {prompts: p.jsonl}\nsft: {ready_model: m}\n"


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("pairs.eta=0.9", "pairs", "eta", 0.9),
        ("pairs.tau=1e-1", "pairs", "tau", 0.1),
        ("sampling.k=8", "sampling", "k", 8),
        ("sampling.stop=['\\n', 'Human:']", "sampling", "stop", ("\\n", "Human:")),
        ("sampling.extra={max_num_seqs: 2}", "sampling", "extra", {"max_num_seqs": 2}),
        ("dpo.lora=null", "dpo", "lora", None),
        ("data.system_prompt=a=b", "data", "system_prompt", "a=b"),
        ("pairs.max_pairs_per_prompt=", "pairs", "max_pairs_per_prompt", None),
    ],
)
def test_overrides(tmp_path, override, section, field, value):
    config = load_config(write(tmp_path / "a.yaml", GOOD), [override])
    assert getattr(getattr(config, section), field) == value


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-5", 1e-5),
        ("2E3", 2000.0),
        ("-1.5e+2", -150.0),
        (".5e1", 5.0),
        ("'1e-5'", "1e-5"),
        ("1e5x", "1e5x"),
        ("e5", "e5"),
        ("0100", "0100"),  # 64 in YAML 1.1
        ("'1:30'", "1:30"),
        ("0x10", 16),
        ("-7", -7),
    ],
)
def test_a_number_needs_no_point_wherever_it_stands(tmp_path, written, read):
    text = f"{GOOD}evaluation: {{gold_reward: {{function: 'm:f', options: {{here: [{written}]}}}}}}\n"
    path = write(tmp_path / "a.yaml", text)
    assert load_config(path, []).evaluation.gold_reward.options == {"here": [read]}
    found = load_config(path, [f"evaluation.gold_reward.options.there={written}"]).evaluation.gold_reward.options
    assert found["there"] == read


def test_overrides_reach_into_what_the_file_leaves_short(tmp_path):
    path = write(tmp_path / "a.yaml", GOOD)
    config = load_config(path, ["sft.ready_model.chat_template=text", "data.prompts.split=test", "dpo.lora.r=4"])
    assert (config.sft.ready_model.path, config.sft.ready_model.chat_template) == ("m", "text")
    assert (config.data.prompts.path, config.data.prompts.split) == ("p.jsonl", "test")
    assert config.dpo.lora.r == 4


def test_the_last_override_wins_and_the_store_is_no_section(tmp_path):
    config = load_config(write(tmp_path / "a.yaml", GOOD), ["pairs.eta=0.6", "store=s3://b/p", "pairs.eta=0.7"])
    assert (config.pairs.eta, config.store) == (0.7, "s3://b/p")


def test_an_override_of_a_shared_anchor_changes_one_place(tmp_path):
    text = "data: {prompts: &p {path: p.jsonl}, preferences: *p}\nsft: {ready_model: m}\n"
    config = load_config(write(tmp_path / "a.yaml", text), ["data.prompts.path=q.jsonl"])
    assert (config.data.prompts.path, config.data.preferences.path) == ("q.jsonl", "p.jsonl")


def test_variables_are_put_in(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/data: [1]")
    monkeypatch.setenv("RUN", "seven")
    text = "data: {prompts: '${SOME_FOLDER}/${RUN}.jsonl'}\nsft: {ready_model: m}\n# ${NOT_SET} in a comment\n"
    config = load_config(write(tmp_path / "a.yaml", text), ["store=${RUN}/store"])
    assert config.data.prompts.path == "/data: [1]/seven.jsonl"
    assert config.store == "seven/store"


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        ("data: {prompts: '${NOT_SET}/p'}", None, r"a.yaml uses the environment variable NOT_SET, which is not set"),
        (GOOD, "store=${NOT_SET}", r"--set uses the environment variable NOT_SET"),
        (GOOD, "pairs.eta", r"--set pairs.eta must look like section.field=value"),
        (GOOD, "=3", r"--set =3 must look like"),
        ("a: [1", None, r"a.yaml is no valid YAML"),
        ("a: 2024-13-45", None, r"a.yaml is no valid YAML: month must be in 1..12"),
        ("a: !!int x", None, r"a.yaml is no valid YAML: invalid literal"),
        (GOOD, "sft.ready_model.template_date=2024-02-30", r"--set sft.*2024-02-30. is no valid YAML: day"),
        ("- a\n- b\n", None, r"a.yaml must hold sections .* not a list"),
        ("just text", None, r"a.yaml must hold sections .* not a str"),
        (f"{GOOD}pairs: {{eta: 0.9}}\npairs: {{tau: 2}}\n", None, r"'pairs' stands here twice"),
        (GOOD, "pairs={eta: 0.9, tau: 1, eta: 0.95}", r"--set pairs.*'eta' stands here twice"),
        (f"{GOOD}store: '${{NOT_SET:-/x}}/s'\n", None, r"\$\{NOT_SET:-/x\} is not read: .* is written \$\{NAME\}"),
        (GOOD, "store=${oc.env:HOME}/s", r"--set: \$\{oc.env:HOME\} is not read"),
        (f"{GOOD}store: '${{IS_EMPTY}}/s'\n", None, r"IS_EMPTY, which is empty: set it"),
    ],
)
def test_files_and_overrides_that_cannot_be_read(tmp_path, monkeypatch, text, override, message):
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("IS_EMPTY", "")
    with pytest.raises(ValueError, match=message):
        load_config(write(tmp_path / "a.yaml", text), [override] if override else [])


def test_a_merged_mapping_may_be_overridden(tmp_path):
    text = (
        "data: {prompts: p.jsonl}\nsft: {ready_model: {<<: &m {path: m, chat_template: text}, path: n}}\n"
        "reward_model: {ready_model: {<<: *m, <<: {revision: a}}}\n"
    )
    config = load_config(write(tmp_path / "a.yaml", text), [])
    assert (config.sft.ready_model.path, config.sft.ready_model.chat_template) == ("n", "text")
    assert config.reward_model.ready_model.path == "m"


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        ("- a\n", "pairs.eta=0.9", r"a.yaml must hold sections"),
        (GOOD + "pairs: {eta: 0.9}\n", "pairs.eta.x=1", r"pairs.eta"),
        (GOOD + "pairs: [eta]\n", "pairs.eta=0.9", r"pairs"),
        (GOOD, "pairs.eta=[1", r"--set pairs.eta"),
    ],
)
def test_overrides_that_do_not_fit_the_file(tmp_path, text, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(tmp_path / "a.yaml", text), [override])


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00data")
    with pytest.raises(ValueError, match=r"a\.yaml"):
        load_config(str(tmp_path / "a.yaml"), [])


def test_an_empty_file_names_what_is_missing(folder):
    write(folder / "empty.yaml", "")
    message = refused(folder, config="empty.yaml")
    assert "data: Field required" in message
    assert "sft: Field required" in message
