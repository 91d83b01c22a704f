"""Candidates to select pairs from, built from a matrix of rewards; and pairs as sets."""

import math

import numpy as np
import pyarrow as pa

from tasks.selection.pairs import Candidates
from tasks.store.schemas import SCHEMAS

NAN = math.nan


def as_set(pairs):
    return {(int(r), int(j), int(i)) for r, j, i in zip(*pairs, strict=True)}


def candidates(rewards, texts=None, cut=()):
    rewards = np.array(rewards, np.float64)
    truncated = np.zeros(rewards.shape, bool)
    for place in cut:
        truncated[place] = True
    texts = np.arange(rewards.size).reshape(rewards.shape) if texts is None else np.array(texts)
    ids, distinct = pa.array([f"p{row}" for row in range(len(rewards))]), pa.array(map(str, range(rewards.size)))
    terms = {"one": rewards, "two": 2 * rewards}  # for pareto: of one order, so that pairs are the threshold's
    return Candidates(ids, rewards, truncated, np.ones(rewards.shape, int), texts, distinct, texts >= 0, terms)


def chosen(found):
    """Return (chosen, rejected) of a single prompt."""
    assert set(found.row.tolist()) <= {0}
    return list(zip(found.chosen.tolist(), found.rejected.tolist(), strict=True))


def completions_table(rows):
    """Return a completions table of (prompt_id, completion_id, text, finish_reason)."""
    columns = ("prompt_id", "completion_id", "completion", "finish_reason")
    values = [dict(zip(columns, row, strict=True)) | {"token_ids": [1], "num_tokens": 1} for row in rows]
    return pa.Table.from_pylist(values, schema=SCHEMAS["completions"])


def rewards_table(rows):
    """Return a rewards table of (prompt_id, completion_id, reward)."""
    columns = ("prompt_id", "completion_id", "reward")
    return pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], schema=SCHEMAS["rewards"])
