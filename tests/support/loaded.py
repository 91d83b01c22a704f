"""Files of prompts, and the load stages called without Prefect."""

import json
from itertools import count

from tasks.data.prompt_table import PromptTable
from tasks.data.records import prompt_id
from tasks.prompts import find_data, load_held_out, load_prompts
from tasks.store.artifacts import NOTHING, Provenance
from tasks.store.drafts import Draft

NUMBERS = count()
TOO_LONG = "longer than the policy's context less max_new_tokens"


def draft(store, stage="stage"):
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


def ids(artifact):
    return set(PromptTable(artifact).ids)


def no_held_out(store):
    return draft(store, "held_out").commit("prompts", {}, "none")
