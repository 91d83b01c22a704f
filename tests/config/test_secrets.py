"""No secret and no foreign place in a configuration, and none repeated in a message."""

import pytest
from pydantic import ValidationError

from flows.config_files import explain
from tasks.config.data import DataConfig
from tasks.config.sections import Function, ModelSource
from tasks.config.training import DpoConfig
from tasks.pipeline.configuration import Config

# Places


@pytest.mark.parametrize(
    "path",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://host/p.jsonl",
        "ftp://host/p.jsonl",
        "ssh://host/p.jsonl",
        "github://main/p.jsonl",
        "simplecache::https://host/p.jsonl",
        "zip://p.jsonl::s3://bucket/p.zip",
        "s3:///p.jsonl",
        "memory://p.jsonl",
    ],
)
def test_nothing_is_fetched_from_elsewhere(path):
    for make_it in (lambda: ModelSource(path=path), lambda: DataConfig(prompts=path)):
        with pytest.raises(ValidationError, match=r"must be a file, a folder, file:///..., s3://bucket/key or a hub"):
            make_it()


# Secrets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.prompts", "s3://key:hush@bucket/p.jsonl"),
        ("data.prompts", {"path": "s3://key:hush@bucket/p.jsonl"}),
        ("data.preferences", "https://user:hush@host/p.jsonl"),
        ("sft.base_model", "s3://key:hush@bucket/m"),
        ("reward_model.ready_model.path", "https://hush@host/m"),
        ("store", "s3://key:hush@bucket/prefix"),
        ("sft.extra.hub_token", "hush"),
        ("sft.extra.push_to_hub_token", "hush"),
        ("dpo.extra.model_init_kwargs.token", "hush"),
        ("reward_model.extra.HF_TOKEN", "hush"),
        ("evaluation.gold_reward.options.api_key", "hush"),
        ("evaluation.gold_reward.options.openai_api_key", "hush"),
        ("evaluation.gold_reward.options.apikey", "hush"),
        ("evaluation.gold_reward.options.AWS_SECRET_ACCESS_KEY", "hush"),
        ("evaluation.gold_reward.options.aws_access_key_id", "hush"),
        ("evaluation.gold_reward.options.db_password", "hush"),
        ("evaluation.gold_reward.options.client_secret", ["hush"]),
        ("evaluation.gold_reward.options.judges", [{"url": "https://host/v1", "access_token": "hush"}]),
        ("evaluation.gold_reward.options.url", "simplecache::https://user:hush@host/words.txt"),
    ],
)
def test_secrets_are_refused_and_not_repeated(name, value):
    values = {"data": {"prompts": "p"}, "sft": {}, "evaluation": {"gold_reward": {"function": "m:f"}}}
    *places, last = name.split(".")
    section = values
    for place in places:
        section = section.setdefault(place, {})
    section[last] = value
    with pytest.raises(ValidationError, match=r"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY .*HF_TOKEN") as caught:
        Config.model_validate(values)
    assert [".".join(map(str, error["loc"])).startswith(name) for error in caught.value.errors()] == [True]
    assert "hush" not in str(caught.value) + explain(caught.value) + repr(caught.value.errors())


def test_a_section_alone_takes_no_secret_either():
    for make_it in (
        lambda: ModelSource(path="s3://key:hush@bucket/m"),
        lambda: DataConfig(prompts="s3://key:hush@bucket/p"),
        lambda: DpoConfig(extra={"hub_token": "hush"}),
    ):
        with pytest.raises(ValidationError, match="a secret must not be here") as caught:
            make_it()
        assert "hush" not in str(caught.value)


def test_what_only_looks_like_a_secret_is_taken():
    names = ("pad_token", "eos_token", "max_tokens", "tokenizer", "token_ids", "key", "num_tokens", "tokens_per_batch")
    Function(function="a:b", options=dict.fromkeys(names, "x") | {"hub_token": None, "use_auth_token": False})
    for path in ("org/name", "s3://bucket/a@b/p.jsonl", "file:///home/a@b/p.jsonl", "me@home/p.jsonl"):
        DataConfig(prompts=path, system_prompt="Write to me@host or see https://host/@me.")
