"""The table of a policy's completions: what it has, and the drawing of what is missing."""

from typing import Any

import pyarrow.compute as pc

from tasks.config.settings import Decoding
from tasks.data.prompt_table import PromptTable
from tasks.lm.context import context_length
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.models.loading import model_folder, trusts_remote_code
from tasks.models.updates import warn_of_loss
from tasks.pipeline.progress import log, track
from tasks.sampling.drawing import Drawing, Request, cut_into_parts, requests_for
from tasks.sampling.engines import open_engine
from tasks.sampling.last_list import merged_parts, prompt_ids, read_last
from tasks.store.artifacts import Artifact
from tasks.store.compaction import compact
from tasks.store.cover import Selection
from tasks.store.drafts import keyed
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable, Parts
from tasks.store.slices import Slice, column_pieces

TABLE_VERSION = 3
DECIDES_A_COMPLETION = frozenset(Decoding.model_fields) - {"k"}
"""Fields of the settings in the table's key."""


def completions_table(store: Store, policy: Artifact, decoding: Decoding) -> GrowingTable:
    """Return the table that holds every completion of a policy under some settings, whatever run drew it.

    `k` is not among the settings: the first completions of a prompt are the same however many are drawn.
    """
    shared = Decoding(**{name: getattr(decoding, name) for name in Decoding.model_fields})
    inputs, config = {"policy": policy.digest}, {"decoding": shared.model_dump(mode="json", exclude={"k"})}
    decides = shared.key_fields(DECIDES_A_COMPLETION)
    return GrowingTable(store, "completions", keyed("completions", TABLE_VERSION, decides, inputs, config))


def select_completions(table: GrowingTable, found: Parts, prompts: Artifact, k: int) -> Selection:
    """Return what a table, whose parts are given, has of the prompts' k completions, and what is missing."""
    slices, ids = read_last(table, found, prompt_ids(prompts), k)
    selection = Selection(dict.fromkeys(ids.to_pylist(), frozenset(range(k))))
    merged = merged_parts(slices, found)
    selection.begin(slices, merged)
    whole = {slice_.part.uri for slice_ in slices if slice_.is_whole} | {part.uri for part in merged.values()}
    selection.search(found.each(besides=whole))
    return selection


def missing_completions(
    store: Store, policy: Artifact, prompts: Artifact, decoding: Decoding
) -> dict[str, frozenset[int]]:
    """Return which of the prompts' k completions are not in the store: their ids by prompt."""
    table = completions_table(store, policy, decoding)
    return select_completions(table, table.look(), prompts, decoding.k).missing


def sample_slices(store: Store, policy: Artifact, prompts: Artifact, decoding: Decoding) -> tuple[list[Slice], int]:
    """Return the slices with the prompts' k completions, and how many prompts were sampled for them.

    The longest prompts go first, and a part is consecutive prompts, committed as soon as they are all drawn. A
    completion's seed is its own, so what is drawn depends neither on its neighbours nor on a run that was killed
    before, as far as the kernels round alike in batches of any shape. In float32 on CPU they do; in bfloat16 on GPUs a
    logit's last bit may flip a token, and the rest of the completion is then another draw from the same distribution.
    """
    table = completions_table(store, policy, decoding)
    found = table.look()
    if compact(table, found):
        found = table.look()
    selection = select_completions(table, found, prompts, decoding.k)
    sampled = len(selection.missing)
    if sampled:
        texts = PromptTable(prompts, only=selection.missing)
        for part, requests in _draw(table, policy, texts, selection, decoding):
            selection.add(part, dict.fromkeys(request.prompt_id for request in requests))
    return selection.slices(), sampled


def _draw(
    table: GrowingTable, policy: Artifact, prompts: PromptTable, selection: Selection, decoding: Decoding
) -> list[tuple[Artifact, list[Request]]]:
    warn_of_loss(policy, decoding.dtype, "sampling.dtype")
    folder = model_folder(policy)
    trust = trusts_remote_code(policy)
    tokenizer = load_tokenizer(folder, trust)

    def encode(prompt_id: str) -> list[int]:
        return encode_prompt(tokenizer, prompts[prompt_id])

    missing = selection.missing
    counted = track("tokenizing prompts", missing, len(missing))
    lengths = {prompt_id: len(encode(prompt_id)) for prompt_id in counted}  # the ids themselves would fill the memory
    parts = cut_into_parts(requests_for(missing), lengths, selection.begun, decoding.part_size)
    longest = max(lengths.values()) + decoding.max_new_tokens
    engine = open_engine(folder, decoding, min(longest, context_length(folder)), trust)
    log(f"sampling {len(missing)} prompts, {sum(map(len, missing.values()))} completions, with {engine.name}")
    try:
        return Drawing(table, engine, parts, encode, decoding).run()
    finally:
        engine.close()


def completion_stats(slices: list[Slice]) -> dict[str, Any]:
    """Return the number of completions, their tokens, and the share that was cut at max_new_tokens."""
    completions = tokens = cut = 0
    for table in column_pieces(slices, ["num_tokens", "finish_reason"]):
        completions += table.num_rows
        tokens += pc.sum(table["num_tokens"]).as_py() or 0
        cut += pc.sum(pc.equal(table["finish_reason"], "length")).as_py() or 0
    return {
        "completions": completions,
        "tokens": tokens,
        "mean_tokens": tokens / completions,
        "truncation_rate": cut / completions,
    }
