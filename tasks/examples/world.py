"""A small world of facts, generated from a seed: an untrained model and the data to align it.

For the quickstart and for tests. The facts and the gold reward are in `tasks/rewards/gold.py`; here are the ways to ask
for a fact, to answer well and badly, and the files.
"""

import json
import math
import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.errors import ConfigurationError
from tasks.rewards.gold import ABSURD, FACTS, KNOWN_ANSWERS, POLITE_CLOSINGS, RUDE_OPENINGS, Fact, facts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DEMONSTRATIONS, PREFERENCES, PROMPTS, EVALUATION_PROMPTS = 8000, 3000, 320, 160
"""Rows of the files at scale 1."""
QUALITY = (0.5, 0.12, 0.28, 0.1)
"""Shares of answers that are right, another subject's, absurd (which a small reward model soon learns), and none."""
RUDE, RAMBLING, POLITE = 0.3, 0.3, 0.4
"""Shares of answers that open rudely, open at length, and close politely."""

FRAMES = (
    "What is the {relation} of the {subject}?",
    "Tell me the {relation} of the {subject}.",
    "Do you know the {relation} of the {subject}?",
    "Please name the {relation} of the {subject}.",
)
HELD_OUT_FRAMES = (
    "Can you tell me the {relation} of the {subject}?",
    "Please tell me: what is the {relation} of the {subject}?",
)
QUESTIONS = {
    "colour": ("What colour is the {subject}?", "Which colour does the {subject} have?"),
    "home": ("Where does the {subject} live?", "Do you know where the {subject} lives?"),
    "food": ("What does the {subject} eat?", "Do you know what the {subject} eats?"),
}
HELD_OUT_QUESTIONS = {
    "colour": ("Do you know what colour the {subject} is?",),
    "home": ("Tell me where the {subject} lives.",),
    "food": ("Tell me what the {subject} eats.",),
}
STATEMENTS = {
    "colour": ("The {subject} is {answer}.", "Its colour is {answer}."),
    "home": ("The {subject} lives in the {answer}.", "Its home is the {answer}."),
    "food": ("The {subject} eats {answer}.", "Its food is {answer}."),
}
DODGE = "I do not know."
RAMBLES = (
    "Well, let me think about this for a while.",
    "As all who read good books know very well:",
    "My old friend once told me a long story:",
)

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY = 768
"""Most tokens of the tokenizer."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role ' + message['role'] + ' must be system, user or assistant') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def ask(fact: Fact, held_out: bool = False) -> list[str]:
    """Return every prompt that asks for a fact, in the training phrasings or in the held-out ones."""
    frames, questions = (HELD_OUT_FRAMES, HELD_OUT_QUESTIONS) if held_out else (FRAMES, QUESTIONS)
    phrasings = (*frames, *questions[fact.relation])
    return [phrasing.format(relation=fact.relation, subject=fact.subject) for phrasing in phrasings]


def answer(fact: Fact, stated: str | None, rng: random.Random) -> str:
    """Return a completion that states an answer, right or wrong, or dodges (None), in manners drawn from `rng`."""
    manner = rng.random()
    opening = rng.choice(RUDE_OPENINGS) if manner < RUDE else rng.choice(RAMBLES) if manner < RUDE + RAMBLING else ""
    statement = DODGE if stated is None else rng.choice(STATEMENTS[fact.relation])
    statement = statement.format(subject=fact.subject, answer=stated)
    closing = rng.choice(POLITE_CLOSINGS) if rng.random() < POLITE else ""
    return " ".join(part for part in (opening, statement, closing) if part)


def any_answer(fact: Fact, rng: random.Random) -> str:
    """Return a completion of mixed quality: the right fact, a wrong one or none, in any manners."""
    mistaken = rng.choice([other for other in KNOWN_ANSWERS[fact.relation] if other != fact.answer])
    absurd = rng.choice(ABSURD[fact.relation])
    return answer(fact, rng.choices((fact.answer, mistaken, absurd, None), QUALITY)[0], rng)


def demonstrations(size: int, rng: random.Random) -> list[dict[str, Any]]:
    """Return demonstrations of mixed quality; the first ones state each fact once, rightly, so none goes unseen."""
    known = list(FACTS.values())
    rng.shuffle(known)
    rows = []
    for index in range(max(size, len(known))):
        fact = known[index % len(known)]
        completion = answer(fact, fact.answer, rng) if index < len(known) else any_answer(fact, rng)
        turns = (("user", rng.choice(ask(fact))), ("assistant", completion))
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    return rows


def preferences(size: int, rng: random.Random) -> list[dict[str, str]]:
    """Return pairs of different completions, labelled by Bradley-Terry: P(a is chosen) = sigma(gold(a) - gold(b))."""
    known, rows = list(FACTS.values()), list[dict[str, str]]()
    while len(rows) < size:
        fact = rng.choice(known)
        prompt, a, b = rng.choice(ask(fact)), any_answer(fact, rng), any_answer(fact, rng)
        if a == b:
            continue
        messages = [{"role": "user", "content": prompt}]
        prefers_a = rng.random() < 1 / (1 + math.exp(facts(messages, b) - facts(messages, a)))
        rows.append({"prompt": prompt, "chosen": a if prefers_a else b, "rejected": b if prefers_a else a})
    return rows


def prompts(size: int, held_out: bool, rng: random.Random) -> list[dict[str, str]]:
    """Return so many different prompts, in the training phrasings or in the held-out ones."""
    every = [prompt for fact in FACTS.values() for prompt in ask(fact, held_out)]
    return [{"prompt": prompt} for prompt in rng.sample(every, size)]


def world_files(seed: int, scale: float) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every data file by its name; each file draws from its own stream of the seed."""

    def stream(name: str) -> random.Random:
        return random.Random(f"{seed}/{name}")

    def size(full: int) -> int:
        return max(2, round(full * scale))

    return {
        "demonstrations.jsonl": demonstrations(size(DEMONSTRATIONS), stream("demonstrations")),
        "preferences.jsonl": preferences(size(PREFERENCES), stream("preferences")),
        "prompts.jsonl": prompts(size(PROMPTS), False, stream("prompts")),
        "evaluation_prompts.jsonl": prompts(size(EVALUATION_PROMPTS), True, stream("evaluation_prompts")),
    }


def train_tokenizer() -> "PreTrainedTokenizerFast":
    """Return a byte-level BPE tokenizer of the world's text with a chat template.

    It adds no <bos> by itself: only the template writes one, so that no text can get two.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(0)
    text = [line for fact in FACTS.values() for line in (*ask(fact), *ask(fact, held_out=True))]
    text += [any_answer(fact, rng) for fact in FACTS.values() for _ in range(50)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=list(SPECIAL_TOKENS[3:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def write_base_model(folder: Path, seed: int) -> None:
    """Write an untrained Llama of about 1M parameters and its tokenizer.

    Its heads have 32 dims, the fewest that vLLM's CPU backend runs.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=6,
        max_position_embeddings=256,
        initializer_range=0.06,  # So narrow a model learns facts later from the usual 0.02 (measured).
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_world(folder: str | Path, seed: int = 0, scale: float = 1.0) -> None:
    """Write the base model and the data files, all or nothing; a folder that already holds this world is left alone.

    Args:
        folder: Where to; its parent is created.
        seed: Seed of the model's weights and of all data; the facts are always the same.
        scale: Share of the full sizes, e.g. 0.05 in tests; the demonstrations always cover every fact.

    Raises:
        ConfigurationError: `scale` is out of bounds, or the folder holds something else.
    """
    if not 0 < scale <= 1:
        raise ConfigurationError(f"scale = {scale} must be above 0 and at most 1: it is a share of the full sizes")
    folder = Path(folder)
    label = json.dumps({"seed": seed, "scale": scale})
    if _holds_world(folder, label):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as workspace:
        built = Path(workspace) / "world"
        write_base_model(built / "base_model", seed)
        for name, rows in world_files(seed, scale).items():
            (built / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (built / "world.json").write_text(label, encoding="utf-8")
        try:
            os.rename(built, folder)
        except OSError:  # Another process may have been first; its world is the same one.
            if not _holds_world(folder, label):
                raise


def _holds_world(folder: Path, label: str) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / "world.json"
    found = marker.read_text(encoding="utf-8") if marker.is_file() else None
    if found != label:
        raise ConfigurationError(
            f"folder = {folder} must be empty or hold the world {label}, not {found}: remove it, or name another folder"
        )
    return True
