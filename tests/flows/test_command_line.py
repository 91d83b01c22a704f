"""The command line: files with overrides and variables, dry runs, and one clear message for each bad input."""

import contextlib
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from runs import ROOT

from flows.command_line import explain, load_config, main
from flows.rs_dpo import rs_dpo

PAIRS = [{"prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(40)]


@pytest.fixture
def folder(tmp_path, test_data, monkeypatch):
    """Return a folder with a configuration that would run, its data and an empty place for the store."""
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    config = {
        "data": {
            "prompts": str(tmp_path / "pairs.jsonl"),
            "preferences": str(tmp_path / "pairs.jsonl"),
            "evaluation_fraction": 0.3,
        },
        "sft": {"ready_model": str(test_data / "stories260k")},
        "sampling": {"k": 4, "max_new_tokens": 8},
        "pairs": {"eta": 0.9},
        "store": str(tmp_path / "store"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path


def files(folder):
    return [path for path in (folder / "store").rglob("*") if path.is_file()]


def refused(folder, *arguments, config="run.yaml"):
    """Run in this process what must be refused; return its message."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as caught:
        main(rs_dpo, [str(folder / config), *arguments])
    assert caught.value.code == 2
    assert files(folder) == []
    message = errors.getvalue()[errors.getvalue().index("error: ") :].strip()
    assert message.startswith("error: ")
    return message


def overrides(**settings):
    return [part for name, value in settings.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


# Configuration files


def write(path, text):
    path.write_text(text)
    return str(path)


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


# Bad input: each stops with one message that names the field or file and the remedy, and leaves nothing


@pytest.mark.parametrize(
    ("override", "pieces"),
    [
        ("pairs.etta=0.9", ["pairs.etta is no known setting: check its spelling"]),
        ("pears.eta=0.9", ["pears is no known setting"]),
        ("pairs.eta=0.3", ["pairs.eta = 0.3", "greater than or equal to 0.5"]),
        ("pairs.tau=0", ["pairs.tau = 0", "greater than 0"]),
        ("sampling.k=1", ["sampling.k = 1", "greater than or equal to 2"]),
        ("dpo.beta=-0.1", ["dpo.beta = -0.1", "greater than 0"]),
        ("sampling.temperature=warm", ["sampling.temperature = 'warm'", "valid number"]),
        ("pairs.strategy=best", ["pairs.strategy = 'best'", "'threshold', 'best_vs_worst' or 'annotation'"]),
        ("dpo.extra={weight_decy: 0.1}", ["dpo.extra.weight_decy cannot be set: nothing here reads it", "spelling"]),
        ("dpo.extra={beta: 0.2}", ["dpo.extra.beta cannot be set: set dpo.beta"]),
        ("sft.extra={per_device_train_batch_size: 4}", ["set sft.micro_batch_size"]),
        ("dpo.extra={weight_decay: '1'}", ["dpo.extra.weight_decay = '1' must be a number"]),
        ("dpo.lora.target_modules=[q_proj, k_porj]", ["dpo.lora.target_modules: the model has no module 'k_porj'"]),
        ("sampling.temperature=3", ["sampling.temperature = 3", "less than or equal to 2"]),
        ("sampling.extra={max_num_seqs: many}", ["sampling.extra.max_num_seqs = 'many'", "valid integer"]),
        ("data.preferences=gold", ["data.preferences = gold needs evaluation.gold_reward"]),
        ("data.preferences=null", ["data.preferences is missing", "reward_model.ready_model"]),
        ("data.prompts=/no/such.jsonl", ["/no/such.jsonl", "check the path"]),
        ("sft.ready_model=/no/such", ["model folder /no/such does not exist"]),
        ("sft.ready_model.chat_template=/no.jinja", ["chat_template = '/no.jinja' must be"]),
        ("store=ftp://host/x", ["store = 'ftp://host/x' must be a folder, file:///... or s3://"]),
        ("store=/proc/nothing/here", ["store file:///proc/nothing/here cannot be written", "permissions"]),
        ("store=s3://key:secret@bucket/x", ["a secret must not be here", "AWS_SECRET_ACCESS_KEY"]),
        ("sampling.max_new_tokens=505", ["longer than the policy's context", "pairs.jsonl line"]),
        ("sampling.max_new_tokens=510", ["no token of the reward model's context", "lower it by more than 2"]),
        ("data.evaluation_fraction=0.001", ["no prompt is held out", "raise data.evaluation_fraction"]),
        ("evaluation.gold_reward.function=tasks.rewards.gold:nothing", ["no function 'nothing'"]),
    ],
)
def test_bad_settings(folder, override, pieces):
    message = refused(folder, "--set", override)
    for piece in pieces:
        assert piece in message


def of_a_library() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("of a library")
    return caught.value


@pytest.mark.parametrize(
    "error",
    [json.JSONDecodeError("cut short", "{", 1), pa.ArrowInvalid("a damaged page"), of_a_library()],
    ids=lambda error: type(error).__name__,
)
def test_a_value_error_of_a_library_passes_for_no_typing_error(folder, error):
    assert isinstance(error, ValueError)

    def body(**_: object) -> None:
        raise error

    with pytest.raises(type(error)):  # Python ends with 1 and the traceback, or a file of it
        main(SimpleNamespace(fn=body), [str(folder / "run.yaml"), "--dry-run"])


def test_every_wrong_field_is_named_at_once(folder):
    message = refused(folder, *overrides(pairs__eta=0.3, sampling__k=1, dpo__betta=2))
    for piece in ("pairs.eta = 0.3", "sampling.k = 1", "dpo.betta is no known setting"):
        assert piece in message


def test_too_few_prompts(folder):
    write(folder / "one.jsonl", '{"prompt": "a"}\n')
    message = refused(
        folder, *overrides(data__prompts=folder / "one.jsonl", data__evaluation_prompts=folder / "pairs.jsonl")
    )
    assert "one.jsonl has 1 usable prompts, at least 2 are needed" in message


def test_a_missing_bucket_of_data(folder, s3_server):
    message = refused(folder, *overrides(data__prompts="s3://no-such-bucket/a.jsonl"))
    assert "s3://no-such-bucket/a.jsonl" in message
    assert "check the bucket" in message


def test_a_truncated_parquet_file(folder):
    (folder / "a.parquet").write_bytes(b"PAR1 and no more")
    assert "a.parquet is not Parquet, or is damaged" in refused(folder, *overrides(data__prompts=folder / "a.parquet"))


def test_no_recognised_columns(folder):
    write(folder / "qa.jsonl", '{"title": "a", "answer": "b"}\n')
    message = refused(folder, *overrides(data__prompts=folder / "qa.jsonl"))
    assert "qa.jsonl line 1 cannot serve as prompts: it has the columns answer, title" in message
    assert "Rename the columns" in message


def test_a_gold_reward_whose_file_is_missing(folder):
    lexicon = overrides(
        data__preferences="gold",
        evaluation__gold_reward="{function: 'tasks.rewards.gold:valence', options: {lexicon: /no/lexicon.txt}}",
    )
    assert "/no/lexicon.txt" in refused(folder, *lexicon, "--dry-run")


def test_a_policy_that_pads_with_eos_cannot_become_a_reward_model(folder, test_data):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (model / name).write_bytes((test_data / "stories260k" / name).read_bytes())
    words = Tokenizer(models.BPE(vocab={"a": 0, "</s>": 1}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(model)
    message = refused(folder, "--dry-run", *overrides(sft__ready_model=model))
    assert "pad" in message


# Dry runs


def plan(folder, capsys, *arguments):
    assert main(rs_dpo, [str(folder / "run.yaml"), "--dry-run", "--json", *arguments]) == {}
    lines = capsys.readouterr().out.splitlines()
    return {step["stage"]: step for step in json.loads(lines[-1])["plan"]}


def test_a_dry_run_foresees_every_stage_and_leaves_nothing(folder, capsys):
    steps = plan(folder, capsys)
    order = ["store_model", "load_held_out", "load_prompts", "load_preferences", "sample_completions"]
    order += ["train_reward_model", "score_completions", "build_pairs", "train_dpo", "evaluate_policy"]
    assert list(steps) == order
    assert {step["action"] for step in steps.values()} == {"compute"}
    assert files(folder) == []
    sampling = steps["sample_completions"]
    assert sampling["completions"] == 4 * sampling["prompts"]
    assert sampling["at most tokens"] == 8 * sampling["completions"]
    held_out = steps["evaluate_policy"]["prompts"]
    assert sampling["prompts"] + held_out == len(PAIRS)
    assert len(sampling["key"]) == 64
    assert steps["train_dpo"]["key"].startswith("known after")


def test_keys_follow_what_a_stage_reads(folder, capsys):
    before = plan(folder, capsys)
    after = plan(folder, capsys, *overrides(sampling__k=5, sampling__part_size=3, scoring__tokens_per_batch=9))
    moved = {name for name in before if before[name]["key"] != after[name]["key"]}
    assert moved == {"sample_completions"}
    assert plan(folder, capsys, *overrides(sampling__part_size=3)) == before


def test_a_dry_run_prints_a_table(folder, capsys):
    main(rs_dpo, [str(folder / "run.yaml"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["sample_completions", "compute"] for line in lines)
    assert any("completions" in line and "at most tokens" in line for line in lines)


def test_a_dry_run_ends_with_what_the_run_would_warn_of(folder, capsys):
    main(rs_dpo, [str(folder / "run.yaml"), "--dry-run", "--set", "sft.epochs=2"])
    assert capsys.readouterr().out.splitlines()[-1].endswith("which is used as it is: sft.epochs")


def test_a_dry_run_leaves_no_temporary_folder(folder, capsys):
    plan(folder, capsys)
    assert list((folder / "tmp").iterdir()) == []


# The command itself


def run(folder, *arguments, **environment):
    """Run the command as a person would; return its exit code, standard output and standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean |= {"PREFECT_HOME": str(folder / "prefect"), "RSDPO_CACHE": str(folder / "cache"), **environment}
    command = [sys.executable, "-m", "flows.rs_dpo", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def stopped(folder, *arguments, **environment):
    """Check that the command stops with one message and leaves nothing; return the message."""
    code, output, errors = run(folder, *arguments, **environment)
    assert code != 0
    assert "Traceback" not in output + errors
    assert errors.count("error:") == 1
    assert files(folder) == []
    return errors


@pytest.mark.parametrize(("reader", "code"), [(">&-", "0"), ("| true", "1")])
def test_command_whose_output_nobody_reads(folder, reader, code):
    script = f'{sys.executable} -m flows.rs_dpo "$0" --dry-run {reader}; echo "status ${{PIPESTATUS[0]}}" >&2'
    command = ["bash", "-c", script, str(folder / "run.yaml")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == f"status {code}"
    assert "Traceback" not in done.stderr
    assert "error:" not in done.stderr


def test_command_wrong_flag(folder):
    errors = stopped(folder, folder / "run.yaml", "--dryrun")
    assert "unrecognized arguments: --dryrun" in errors


def test_command_missing_configuration(folder):
    errors = stopped(folder, "configs/nothing.yaml")
    assert errors.splitlines()[-1].startswith("error: configuration file configs/nothing.yaml does not exist")


def test_command_bad_values(folder):
    arguments = overrides(pairs__eta=0.3, pairs__tau=0, sampling__k=1, dpo__beta=-0.1, data__prompts="nothing.jsonl")
    errors = stopped(folder, folder / "run.yaml", *arguments)
    for piece in ("pairs.eta = 0.3", "pairs.tau = 0", "sampling.k = 1", "dpo.beta = -0.1"):
        assert errors.count(piece) == 1


def test_command_missing_data_file(folder):
    errors = stopped(folder, folder / "run.yaml", *overrides(data__prompts="nothing.jsonl"))
    assert "there is no file or folder nothing.jsonl" in errors
    assert "check the path" in errors


def test_command_malformed_line(folder):
    with (folder / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "cut sh\n')
    errors = stopped(folder, folder / "run.yaml")
    assert f"pairs.jsonl line {len(PAIRS) + 1} is not JSON" in errors


def test_command_missing_bucket(folder, s3_server):
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "NO_PROXY")
    errors = stopped(
        folder,
        folder / "run.yaml",
        *overrides(store="s3://no-such-bucket/prefix"),
        **{name: os.environ[name] for name in names},
    )
    assert "store s3://no-such-bucket/prefix cannot be written" in errors
    assert "check the bucket" in errors


def test_what_is_wrong_with_a_source_is_said_once_and_by_its_setting(tmp_path):
    path = write(tmp_path / "a.yaml", "data: {prompts: {path: p.jsonl, split: 5}}\nsft: {ready_model: m}\n")
    with pytest.raises(ValidationError) as caught:
        load_config(path, [])
    assert explain(caught.value).startswith("data.prompts.split = 5: Input should be a valid string")
    assert len(explain(caught.value).splitlines()) == 1
