"""Preferences from completions, and completions from preferences.

Where a gold reward is known, pairs of the policy's own completions are labelled with it (the controlled setting of
arXiv:2305.18290). Where the data set's own pairs are to be trained on (strategy `annotation`), their texts take the
place of samples.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.data.loading import laid_out
from tasks.data.prompt_table import PromptTable
from tasks.lm.context import context_length
from tasks.lm.tokens import encode_completion, encode_prompt
from tasks.lm.turns import ends_within, without_end
from tasks.models.loading import model_folder, model_tokenizer
from tasks.pipeline.dry_run import pending
from tasks.pipeline.pace import Mean, Tell
from tasks.pipeline.progress import Progress, track
from tasks.pipeline.stage import stage
from tasks.rewards.functions import GoldReward, gold_rewards
from tasks.rewards.scoring import answers_of
from tasks.sampling.drawing import completion_rows
from tasks.sampling.samples import Sample
from tasks.store.artifacts import NOTHING, Artifact, sha256_of
from tasks.store.drafts import Draft
from tasks.store.growing import GrowingTable
from tasks.store.parquet import stored_rows
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices, read_slices, read_whole_prompts, sort_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def label_pairs(completions: Sequence[str], rewards: Sequence[float]) -> list[tuple[str, str, float]]:
    """Return (chosen, rejected, reward gap) for neighbours 0-1, 2-3, ... whose rewards differ."""
    pairs = zip(completions[0::2], completions[1::2], rewards[0::2], rewards[1::2], strict=False)
    return [(a, b, ra - rb) if ra > rb else (b, a, rb - ra) for a, b, ra, rb in pairs if ra != rb]


def labelled_rows(
    drawn: pa.Table, prompts: PromptTable, gold: GoldReward, tell: Tell = lambda rewards: None
) -> Iterator[dict[str, Any]]:
    """Yield the labelled pairs of some prompts' completions as rows of a preferences table.

    Args:
        drawn: All completions of each prompt that it has.
        prompts: Has these prompts.
        gold: The reward that labels.
        tell: Hears of each reward.

    Raises:
        ConfigurationError: A reward is no finite number.
    """
    rows = sort_rows(drawn)
    answers = answers_of(rows, prompts)
    scored = zip(rows["prompt_id"].to_pylist(), answers, gold_rewards(gold, answers, tell).tolist(), strict=True)
    for prompt_id, own in itertools.groupby(scored, key=lambda each: each[0]):
        texts, of_prompt = zip(*((answer.completion, reward) for _, answer, reward in own), strict=True)
        for chosen, rejected, gap in label_pairs(texts, of_prompt):
            pair = {"chosen": chosen, "rejected": rejected, "margin": gap}
            yield {"prompt_id": prompt_id, "messages": prompts[prompt_id], **pair}


def _preview_labels(completions: Artifact) -> tuple[Artifact, dict[str, Any]]:
    return pending(completions.rows // 2, "label_preferences"), {"completions": completions.rows}


@stage(version=2, preview=_preview_labels)
def label_preferences(out: Draft, completions: Artifact, prompts: Artifact, gold: GoldReward) -> Artifact:
    """Label pairs of completions with the gold reward."""
    assert gold.function is not None  # the configuration demands it
    known, drawn = PromptTable(prompts), read_whole_prompts(read_slices(out.store, completions))
    progress = Progress("labelling completions", completions.rows)
    tell = progress.counting(Mean("reward"))
    labelled = (row for completed in drawn for row in labelled_rows(completed, known, gold, tell))
    with laid_out(out, "preferences", labelled) as table:
        progress.close()
        if not table.rows:
            raise ConfigurationError(
                f"{gold.function.function} gives equal rewards to every pair of completions: nothing to learn from"
            )
        return table.commit({"labelled": table.rows})


def annotate(
    policy: Artifact, prompts: Artifact, preferences: Artifact
) -> tuple[dict[str, list[Sample]], Counter[str]]:
    """Return prompt -> chosen and rejected completions in turn, as if sampled, and counts of the pairs left out.

    Args:
        policy: The model whose tokenizer and context the completions are for.
        prompts: The prompts that are trained on; pairs of others are left out.
        preferences: The data set's pairs.

    Raises:
        ConfigurationError: No pair can be used.
    """
    tokenizer, known = model_tokenizer(policy), PromptTable(prompts)
    room = context_length(model_folder(policy, weights=False))
    texts: dict[str, list[Sample]] = defaultdict(list)
    dropped: Counter[str] = Counter()
    for row in track("reading annotated pairs", stored_rows(preferences), preferences.rows):
        if row["prompt_id"] not in known:
            dropped["prompt not sampled"] += 1
            continue
        sides = [_as_sampled(tokenizer, row, side) for side in ("chosen", "rejected")]
        prompt = len(encode_prompt(tokenizer, row["messages"]))
        if any(ends_within(tokenizer, row[side]) for side in ("chosen", "rejected")):
            dropped["an end of a turn within"] += 1
        elif prompt + max(len(side.token_ids) for side in sides) > room:
            dropped["longer than the model's context"] += 1
        else:
            texts[row["prompt_id"]] += sides
    if not texts:
        raise ConfigurationError(
            f"no preference pair can be used ({dict(dropped)}): name the same file in data.prompts"
        )
    return texts, dropped


def _as_sampled(tokenizer: "PreTrainedTokenizerBase", row: dict[str, Any], side: str) -> Sample:
    text = without_end(tokenizer, row[side])
    return Sample(text, encode_completion(tokenizer, text, row["messages"]), "stop")


def _preview_annotations(policy: Artifact, prompts: Artifact, preferences: Artifact) -> tuple[Artifact, dict[str, Any]]:
    texts, dropped = annotate(policy, prompts, preferences)
    completions = sum(map(len, texts.values()))
    return pending(completions, "load_annotations"), {"pairs": completions // 2, "left out": dropped.total()}


@stage(
    version=2,
    preview=_preview_annotations,
    given=lambda wanted: None if wanted else NOTHING,
)
def load_annotations(out: Draft, policy: Artifact, prompts: Artifact, preferences: Artifact, wanted: bool) -> Artifact:
    """Lay out the data set's pairs as completions: 2i is the chosen, 2i + 1 the rejected side of a prompt's pair i."""
    texts, dropped = annotate(policy, prompts, preferences)
    rows = [row for prompt_id in sorted(texts) for row in completion_rows(prompt_id, texts[prompt_id])]
    provenance = out.provenance.model_copy(update={"stage": "annotations"})
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["completions"])
    part = GrowingTable(out.store, "completions", provenance).append(
        sha256_of(repr(sorted(texts)).encode())[:32], table
    )
    stats = {"completions": len(rows), "annotated_prompts": len(texts), "dropped": dict(dropped)}
    return commit_slices(out, "completions", [Slice(part)], stats)
