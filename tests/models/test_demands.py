"""What models demand of rows: refused and over-long ones are counted, a turn ends once, and it is asked early."""

import json
from itertools import count

import pytest
from loaded import draft, id_of, no_held_out, write
from tokenizers import Tokenizer

from tasks.config.data import DataConfig
from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.config.training import DpoConfig
from tasks.data.prompt_table import PromptTable
from tasks.dpo import check_prompts
from tasks.import_model import model_files
from tasks.lm.tokens import encode_completion, encode_prompt, load_tokenizer
from tasks.models.loading import model_tokenizer
from tasks.preferences import annotate, load_annotations
from tasks.prompts import load_held_out, load_prompts
from tasks.reward_model import check_preferences
from tasks.sft import check_demonstrations
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.store.slices import read_slices
from tasks.training_data import load_demonstrations, load_preferences

NUMBERS = count()
ALTERNATES = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.role }}:\n{{ m.content }}"
    "{{ eos_token if m.role == 'assistant' }}\n{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)
TWICE = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Are you there?"}]


@pytest.fixture
def model(test_data, tmp_path):
    """Return a function that lays out the story model as it is stored, with a chat template and a context."""

    def laid_out(template="plain", context=512):
        folder = tmp_path / f"model{next(NUMBERS)}"
        folder.mkdir()
        if template != "plain":
            path = tmp_path / f"{folder.name}.jinja"
            path.write_text(template)
            template = str(path)
        source = ModelSource(path=str(test_data / "stories260k"), chat_template=template)
        for name, content in model_files(test_data / "stories260k", source, "policy").items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
        return Artifact(kind="model", uri=str(folder), digest=folder.name)

    return laid_out


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def data_of(path, **fields):
    return DataConfig(
        **{"prompts": path, "evaluation_prompts": path, "demonstrations": path, "preferences": path} | fields
    )


# Rows that a template refuses


def pairs(number):
    return [{"prompt": f"Question {n}?", "chosen": f"Number {n}.", "rejected": "No idea."} for n in range(number)]


@pytest.mark.parametrize("load", [load_demonstrations, load_preferences])
def test_one_refused_row_is_counted_with_its_reason(tmp_path, store, model, load):
    rows = [*pairs(150), {"prompt": TWICE, "chosen": "Yes.", "rejected": "No."}, *pairs(300)[150:]]
    data = data_of(write(tmp_path / "a.jsonl", rows))
    found = load.body(draft(store), NOTHING, no_held_out(store), model(ALTERNATES), data)
    name = {load_demonstrations: "policy", load_preferences: "reward model"}[load]
    assert found.rows == 300
    assert found.stats["bad"] == {f"refused by the {name}'s chat template (roles must alternate)": 1}
    strict = data.model_copy(update={"max_bad_fraction": 0.001})
    with pytest.raises(ValueError, match=r"\(roles must alternate\): 1 \(first a.jsonl line 151\)"):
        load.body(draft(store), NOTHING, no_held_out(store), model(ALTERNATES), strict)


@pytest.mark.parametrize("name", ["reward model", "reward model kind"])
def test_a_prompt_that_a_reward_model_refuses_is_left_out_for_all(tmp_path, store, model, name):
    data = data_of(
        write(tmp_path / "a.jsonl", [{"prompt": "a"}, {"prompt": TWICE}, {"prompt": "b"}]), max_bad_fraction=0.4
    )
    policy, refuses = model(), model(ALTERNATES)
    models = (refuses, data, 16) if name == "reward model" else (NOTHING, data, 16, {"kind": refuses})
    held_out = load_held_out.body(draft(store), NOTHING, policy, *models)
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), policy, *models)
    for found in (held_out, prompts):
        assert PromptTable(found).ids == [id_of("a"), id_of("b")]
        assert found.stats["bad"] == {f"refused by the {name}'s chat template (roles must alternate)": 1}


def test_a_template_that_stumbles_refuses(tmp_path, store, model):
    stumbles = "{% for m in messages %}{{ m.content + (1 if 'x' in m.content else '') }}\n{% endfor %}"
    data = data_of(write(tmp_path / "a.jsonl", [{"prompt": p} for p in ("a", "b", "x")]), max_bad_fraction=0.4)
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), model(stumbles), NOTHING, data, 16)
    [reason] = prompts.stats["bad"]
    assert "refused by the policy's chat template (can only concatenate str" in reason


@pytest.mark.parametrize(
    ("template", "what", "row"),
    [
        (
            "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}\n{% endif %}{% endfor %}",
            "a system message",
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "b"}],
        ),
        (
            "{{ messages[0].content if messages[0].role == 'system' }}{{ messages[-1].content }}\n",
            "earlier turns",
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "A"}, {"role": "user", "content": "b"}],
        ),
    ],
)
def test_messages_that_a_template_leaves_out_without_a_word(tmp_path, store, model, template, what, row):
    data = data_of(
        write(tmp_path / "a.jsonl", [{"prompt": row}, {"prompt": "b"}, {"prompt": "c"}]), max_bad_fraction=0.5
    )
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), model(template), NOTHING, data, 16)
    assert prompts.stats["bad"] == {f"with {what}, which the policy's chat template leaves out": 1}
    assert PromptTable(prompts).ids == [id_of("b"), id_of("c")]


@pytest.mark.parametrize("load", [load_demonstrations, load_preferences])
@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_a_row_with_a_token_that_has_no_embedding(tmp_path, store, model, load, side):
    policy = model()
    tokens = Tokenizer.from_file(f"{policy.uri}/tokenizer.json")
    tokens.add_tokens(["<extra>"])  # id 512, where the embeddings end at 511
    tokens.save(f"{policy.uri}/tokenizer.json")
    bad = {name: f"{text} <extra>" if name == side else text for name, text in pairs(3)[2].items()}
    data = data_of(write(tmp_path / "a.jsonl", [*pairs(2), bad]), max_bad_fraction=0.4)
    found = load.body(draft(store), NOTHING, no_held_out(store), policy, data)
    name = {load_demonstrations: "policy", load_preferences: "reward model"}[load]
    unread = load is load_demonstrations and side == "rejected"
    assert found.stats["bad"] == ({} if unread else {f"with a token that the {name} has no embedding for": 1})


# Room


def test_a_prompt_must_leave_room_for_what_a_reward_model_reads(tmp_path, store, model):
    texts = ["a b " * n for n in range(1, 60)]
    data = data_of(write(tmp_path / "a.jsonl", [{"prompt": text} for text in texts]), max_bad_fraction=1)
    policy, small = model(), model(context=96)
    tokenizer = load_tokenizer(policy.uri)
    lengths = {id_of(text): len(encode_prompt(tokenizer, [{"role": "user", "content": text}])) for text in texts}
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), policy, small, data, 16)
    after = len(tokenizer("</s>\n\n", add_special_tokens=False)["input_ids"])
    assert set(PromptTable(prompts).ids) == {id_ for id_, length in lengths.items() if length + 16 + after <= 96}
    assert 5 < prompts.rows < len(texts) - 5
    [reason] = prompts.stats["bad"]
    assert reason == f"longer than the reward model's context less max_new_tokens ({96 - 16 - after} tokens)"


# Ends of a turn


def test_ends_that_are_spelled_out_are_taken_away(tmp_path, store, model):
    rows = [
        {"prompt": "a", "chosen": "Yes.</s>", "rejected": "No."},
        {"prompt": "a", "chosen": "Yes.", "rejected": "No.</s>\n"},
        {"prompt": "b", "chosen": "Well.</s></s>", "rejected": "No."},
        {"prompt": "c", "chosen": "Same.</s>", "rejected": "Same."},
        {"prompt": "d", "chosen": "</s>", "rejected": "No."},
        {"prompt": "e", "chosen": "Yes.</s> And?", "rejected": "No."},
    ]
    data, policy = data_of(write(tmp_path / "a.jsonl", rows), max_bad_fraction=0.5), model()
    preferences = load_preferences.body(draft(store), NOTHING, no_held_out(store), policy, data)
    found = read_table(preferences).select(["chosen", "rejected"]).to_pylist()
    assert found == [{"chosen": "Yes.", "rejected": "No."}, {"chosen": "Well.", "rejected": "No."}]
    assert preferences.stats["left_out"] == {"duplicate": 1}
    assert preferences.stats["bad"] == {
        "chosen equals rejected": 1,
        "empty chosen": 1,
        "a completion with an end of a turn within": 1,
    }
    demonstrations = load_demonstrations.body(draft(store), NOTHING, no_held_out(store), policy, data)
    assert read_table(demonstrations)["completion"].to_pylist() == ["Yes.", "Well.", "Same."]


def test_reference_completions_lose_them_and_refuse_nothing(tmp_path, store, model):
    rows = [{"prompt": "a", "completion": "Yes.</s>"}, {"prompt": "b", "completion": "Yes.</s> And?"}, {"prompt": "c"}]
    data = data_of(write(tmp_path / "a.jsonl", rows))
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), model(), NOTHING, data, 16)
    assert read_table(prompts)["reference_completion"].to_pylist() == ["Yes.", "Yes.</s> And?", None]


# Annotations


def test_annotations_are_encoded_as_the_policy_would_have_written_them(tmp_path, store, model):
    rows = [*pairs(3), {"prompt": "Long?", "chosen": "word " * 200, "rejected": "No."}]
    path, policy = write(tmp_path / "a.jsonl", rows), model(context=128)
    some = write(tmp_path / "b.jsonl", [*rows[1:], {"prompt": "Other?"}])
    preferences = load_preferences.body(draft(store), NOTHING, no_held_out(store), policy, data_of(path))
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), policy, NOTHING, data_of(some), 16)
    done = load_annotations.body(draft(store), policy, prompts, preferences, True)
    assert done.stats["dropped"] == {"prompt not sampled": 1, "longer than the model's context": 1}
    drawn = [row for slice_ in read_slices(store, done) for row in slice_.read().to_pylist()]
    tokenizer = load_tokenizer(policy.uri)
    assert {(row["prompt_id"], row["completion_id"], row["completion"]) for row in drawn} == {
        (id_of(f"Question {n}?"), side, text) for n in (1, 2) for side, text in ((0, f"Number {n}."), (1, "No idea."))
    }
    assert all(row["token_ids"] == encode_completion(tokenizer, row["completion"]) for row in drawn)
    assert {row["finish_reason"] for row in drawn} == {"stop"}


def test_annotations_of_no_prompt_are_refused_before_training(tmp_path, store, model):
    policy = model()
    preferences = load_preferences.body(
        draft(store), NOTHING, no_held_out(store), policy, data_of(write(tmp_path / "a.jsonl", pairs(3)))
    )
    others = data_of(write(tmp_path / "b.jsonl", [{"prompt": "x"}, {"prompt": "y"}]))
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), policy, NOTHING, others, 16)
    with pytest.raises(
        ValueError, match=r"no preference pair can be used \({'prompt not sampled': 3}\): name the same"
    ):
        annotate(policy, prompts, preferences)
    with pytest.raises(ValueError, match="no preference pair can be used"):
        load_annotations.options["preview"](policy, prompts, preferences)


# Trainings


def loaded(tmp_path, store, model, rows):
    data = data_of(write(tmp_path / f"{next(NUMBERS)}.jsonl", rows))
    return (
        load.body(draft(store), NOTHING, no_held_out(store), model, data)
        for load in (load_demonstrations, load_preferences)
    )


def test_examples_of_which_none_is_short_enough(tmp_path, store, model):
    policy, source = model(context=64), {"path": "unused"}
    demonstrations, preferences = loaded(
        tmp_path, store, policy, [*pairs(2), {"prompt": "?", "chosen": "a " * 99, "rejected": "b"}]
    )
    check_demonstrations(policy, demonstrations, SftConfig(base_model=source))
    check_preferences(policy, preferences, RewardModelConfig(evaluation_fraction=0))
    for limit in (8, 1024):
        long = [{"prompt": "?", "chosen": "a " * 99, "rejected": "b " * 99}] if limit > 64 else pairs(2)
        demonstrations, preferences = loaded(tmp_path, store, policy, long)
        message = (
            rf"examples are longer than {min(64, limit)} tokens, the smaller of max_length and the model's context"
        )
        with pytest.raises(ValueError, match=message):
            check_demonstrations(policy, demonstrations, SftConfig(base_model=source, max_length=limit))
        with pytest.raises(ValueError, match=message):
            check_preferences(policy, preferences, RewardModelConfig(max_length=limit, evaluation_fraction=0))
        check_demonstrations(policy, demonstrations, SftConfig(ready_model=source, max_length=limit))
        check_preferences(policy, preferences, RewardModelConfig(ready_model=source, max_length=limit))


def test_a_context_that_leaves_no_token_for_a_prompt(tmp_path, store, model):
    policy, data = model(context=64), data_of(write(tmp_path / "prompts.jsonl", [{"prompt": "a"}]))
    with pytest.raises(ValueError, match=r"max_new_tokens = 65 leaves no token .* lower it by more than 1$"):
        load_prompts.body(draft(store), NOTHING, no_held_out(store), policy, NOTHING, data, 65)


def test_prompts_of_which_none_leaves_room_for_a_completion(tmp_path, store, model):
    policy, rows = model(), [{"prompt": "a " * 40}, {"prompt": "b " * 30}]
    data = data_of(write(tmp_path / "prompts.jsonl", rows))
    prompts = load_prompts.body(draft(store), NOTHING, no_held_out(store), policy, NOTHING, data, 16)
    tokenizer, table = model_tokenizer(policy), read_table(prompts)
    shortest = min(len(encode_prompt(tokenizer, messages)) for messages in table["messages"].to_pylist())
    check_prompts(policy, prompts, DpoConfig(max_length=shortest + 1))
    with pytest.raises(ValueError, match=rf"all 2 prompts have dpo.max_length = {shortest} tokens or more"):
        check_prompts(policy, prompts, DpoConfig(max_length=shortest))


def test_margins_and_splits(tmp_path, store, model):
    policy = model()
    _, preferences = loaded(tmp_path, store, policy, [{**row, "margin": 1} for row in pairs(2)])
    check_preferences(policy, preferences, RewardModelConfig(use_margin=True, evaluation_fraction=0))
    _, without = loaded(tmp_path, store, policy, [{**pairs(1)[0], "margin": 1}, *pairs(3)[1:]])
    with pytest.raises(
        ValueError,
        match=r"2 of 3 preference rows have no `margin`, which reward_model.loss = margin",
    ):
        check_preferences(policy, without, RewardModelConfig(use_margin=True, evaluation_fraction=0))
    with pytest.raises(ValueError, match=r"all 2 preference pairs are held out"):
        check_preferences(policy, preferences, RewardModelConfig(evaluation_fraction=0.999999))
    check_preferences(policy, NOTHING, RewardModelConfig())
