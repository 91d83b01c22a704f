"""The command line: one clear message for each bad input, and the command as a person types it."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
from command_lines import PAIRS, files, overrides, refused, run, write
from pydantic import TypeAdapter, ValidationError
from runs import ROOT

from flows.command_line import main
from flows.config_files import explain, load_config

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
        ("pairs.strategy=best", ["pairs.strategy = 'best'", "'threshold', 'best_vs_worst', 'best_vs_random'"]),
        ("dpo.extra={weight_decy: 0.1}", ["dpo.extra.weight_decy cannot be set: nothing here reads it", "spelling"]),
        ("dpo.extra={beta: 0.2}", ["dpo.extra.beta cannot be set: set dpo.beta"]),
        ("sft.extra={per_device_train_batch_size: 4}", ["set sft.tokens_per_batch"]),
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


# The command itself


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("prompts: {path: p.jsonl, split: 5}", "data.prompts.split = 5: Input should be a valid string"),
        ("prompts: p, preferences: {path: a, wieght: 2}", "data.preferences.wieght is no known setting"),
        (
            "prompts: p, preferences: [{path: a}, {path: b, weight: 0}]",
            "data.preferences.1.weight = 0: Input should be",
        ),
    ],
)
def test_what_is_wrong_with_a_source_is_said_once_and_by_its_setting(tmp_path, data, message):
    path = write(tmp_path / "a.yaml", f"data: {{{data}}}\nsft: {{ready_model: m}}\n")
    with pytest.raises(ValidationError) as caught:
        load_config(path, [])
    assert explain(caught.value).startswith(message)
    assert len(explain(caught.value).splitlines()) == 1
