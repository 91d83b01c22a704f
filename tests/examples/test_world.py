import json
import math
import random
import statistics
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.examples import world
from tasks.rewards.gold import ANSWERS, FACTS, POLITE_CLOSINGS, RUDE_OPENINGS, facts, find_fact, words

FILES = ("demonstrations.jsonl", "preferences.jsonl", "prompts.jsonl", "evaluation_prompts.jsonl")
SCALE = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("world") / "w"
    world.write_world(path, seed=0, scale=SCALE)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder / "base_model")


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def user(prompt: str) -> list[dict]:
    return [{"role": "user", "content": prompt}]


def test_a_seed_gives_the_same_bytes(folder, tmp_path):
    state = torch.get_rng_state()
    world.write_world(tmp_path / "again", seed=0, scale=SCALE)
    world.write_world(tmp_path / "other", seed=1, scale=SCALE)
    assert torch.equal(state, torch.get_rng_state()), "writing a world must not touch the global seed"
    assert contents(folder) == contents(tmp_path / "again")
    other = contents(tmp_path / "other")
    assert all(contents(folder)[name] != other[name] for name in (*FILES, "base_model/model.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]


def test_a_complete_folder_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    world.write_world(folder, seed=0, scale=SCALE)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_another_folder_is_not_overwritten(folder, tmp_path):
    with pytest.raises(ValueError, match="must be empty or hold the world"):
        world.write_world(folder, seed=1, scale=SCALE)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be empty or hold the world"):
        world.write_world(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_crash_leaves_nothing(tmp_path, monkeypatch):
    def crash(seed, scale):
        raise RuntimeError("power cut")

    monkeypatch.setattr(world, "world_files", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        world.write_world(tmp_path / "deep" / "w", scale=SCALE)
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("scale", [0, -1, 1.5, math.nan])
def test_scale_is_bounded(tmp_path, scale):
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        world.write_world(tmp_path / "w", scale=scale)


def test_the_full_world_has_its_sizes():
    files = world.world_files(seed=3, scale=1.0)
    sizes = (world.DEMONSTRATIONS, world.PREFERENCES, world.PROMPTS, world.EVALUATION_PROMPTS)
    assert tuple(len(files[name]) for name in FILES) == sizes
    for name in ("prompts.jsonl", "evaluation_prompts.jsonl"):
        assert len({row["prompt"] for row in files[name]}) == len(files[name])


def test_held_out_prompts_are_in_no_other_file():
    files = world.world_files(seed=0, scale=1.0)
    others = {row["prompt"] for name in ("prompts.jsonl", "preferences.jsonl") for row in files[name]}
    others |= {row["messages"][0]["content"] for row in files["demonstrations.jsonl"]}
    held_out = {row["prompt"] for row in files["evaluation_prompts.jsonl"]}
    assert not held_out & others
    phrasings = {prompt: find_fact(user(prompt)) for prompt in held_out | others}
    shapes = {
        prompt.replace(fact.subject, "SUBJECT").replace(fact.relation, "RELATION") for prompt, fact in phrasings.items()
    }
    frames = len(world.FRAMES + world.HELD_OUT_FRAMES) + sum(
        len(world.QUESTIONS[relation] + world.HELD_OUT_QUESTIONS[relation]) for relation in world.QUESTIONS
    )
    assert len(shapes) == frames, "two phrasings are the same"


def test_every_prompt_asks_for_its_fact():
    for fact in FACTS.values():
        for prompt in (*world.ask(fact), *world.ask(fact, held_out=True)):
            assert find_fact(user(prompt)) == fact


def test_every_fact_is_demonstrated(folder):
    shown = set()
    for row in rows(folder, "demonstrations.jsonl"):
        question, reply = row["messages"]
        assert (question["role"], reply["role"]) == ("user", "assistant")
        fact = find_fact([question])
        if fact.answer in words(reply["content"]):
            shown.add(fact)
    assert shown == set(FACTS.values())


def test_demonstrations_are_of_mixed_quality():
    demonstrations = world.world_files(seed=0, scale=1.0)["demonstrations.jsonl"]
    rewards = [facts(row["messages"][:1], row["messages"][1]["content"]) for row in demonstrations]
    right = statistics.mean(
        find_fact(row["messages"][:1]).answer in words(row["messages"][1]["content"]) for row in demonstrations
    )
    assert right == pytest.approx(world.QUALITY[0], abs=0.03)
    assert -0.5 < statistics.mean(rewards) < 1
    assert statistics.pstdev(rewards) > 1.5


def test_manners_hide_no_answer():
    manners = " ".join((*POLITE_CLOSINGS, *RUDE_OPENINGS, *world.RAMBLES, world.DODGE))
    assert not {answer for known in ANSWERS.values() for answer in known} & set(words(manners))


def test_a_good_completion_beats_a_bad_one():
    for fact in FACTS.values():
        messages = user(world.ask(fact)[0])
        for statement in world.STATEMENTS[fact.relation]:
            right, wrong = (
                statement.format(subject=fact.subject, answer=answer)
                for answer in (fact.answer, next(other for other in ANSWERS[fact.relation] if other != fact.answer))
            )
            good, bad = f"{right} {POLITE_CLOSINGS[0]}", f"{RUDE_OPENINGS[0]} {wrong}"
            assert facts(messages, good) == 3
            assert facts(messages, right) == 2
            assert facts(messages, wrong) == -2
            assert facts(messages, bad) == -3


def test_preferences_follow_gold_with_bradley_terry_noise():
    pairs = world.preferences(4000, random.Random(0))
    assert all(row["chosen"] != row["rejected"] for row in pairs)
    gaps = [facts(user(row["prompt"]), row["chosen"]) - facts(user(row["prompt"]), row["rejected"]) for row in pairs]
    decided = [gap for gap in gaps if gap]
    flipped = statistics.mean(gap < 0 for gap in decided)
    expected = statistics.mean(1 / (1 + math.exp(abs(gap))) for gap in decided)
    spread = math.sqrt(expected * (1 - expected) / len(decided))
    assert flipped == pytest.approx(expected, abs=4 * spread)
    assert 0.05 < expected < 0.4


def test_the_base_model_is_small_and_suits_vllm(folder, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(folder / "base_model")
    config = model.config
    assert 0.7e6 < sum(weight.numel() for weight in model.parameters()) < 1.5e6
    assert config.head_dim >= 32
    assert config.max_position_embeddings == 256
    assert model.dtype == torch.float32
    assert config.vocab_size == len(tokenizer) <= 1024
    for ids in (config, model.generation_config):
        expected = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        assert (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id) == expected
    assert len(set(expected)) == 3


def test_the_template_agrees_with_sampling(tokenizer):
    for fact in FACTS.values():
        prompt, completion = user(world.ask(fact)[0]), world.any_answer(fact, random.Random(0))
        prompt_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(
            [*prompt, {"role": "assistant", "content": completion}], return_dict=False
        )
        completion_ids = tokenizer(completion)["input_ids"] + [tokenizer.eos_token_id]
        assert prompt_ids + completion_ids == whole
        assert whole.count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(completion_ids, skip_special_tokens=True) == completion
        assert len(whole) <= 48


def test_the_template_takes_system_turns_and_refuses_others(tokenizer):
    messages = [
        {"role": "system", "content": "Be kind."},
        *user("Hi"),
        {"role": "assistant", "content": "Yes"},
        *user("So?"),
    ]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<bos><|system|>Be kind.<|user|>Hi<|assistant|>Yes<eos><|user|>So?<|assistant|>"
    assert tokenizer(text)["input_ids"].count(tokenizer.bos_token_id) == 1
    with pytest.raises(Exception, match="role tool must be system, user or assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "42"}], tokenize=False)


@pytest.mark.parametrize("text", ["naïve 日本 🙂\n\ttabs", "  two  spaces "])
def test_the_tokenizer_is_lossless(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
