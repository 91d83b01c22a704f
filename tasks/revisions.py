"""Revisions: reads completions, writes what a judge makes of them by its principles (arXiv:2212.08073).

A revision is a demonstration, and the chosen side of a pair with the completion that it revises. The first completion
of each prompt is revised. Both stages ask the same questions, so that the second one finds all answers in the store.
"""

from typing import Any, NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.data.loading import commit_rows
from tasks.data.prompt_table import PromptTable
from tasks.judges.judge import Judge
from tasks.judges.questions import Judged
from tasks.judges.revising import revise
from tasks.pipeline.dry_run import pending
from tasks.pipeline.progress import Progress
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.slices import read_slices, texts_by_prompt


class Revised(NamedTuple):
    """Completions and their revisions."""

    rows: list[tuple[str, Judged, str]]
    """prompt_id, completion with its prompt, and revision, of the revisions that could be read."""
    stats: dict[str, Any]


def first_completions(store: Store, completions: Artifact, prompts: PromptTable) -> dict[str, Judged]:
    """Return the completion with the lowest id of each prompt, with the prompt."""
    drawn = texts_by_prompt(read_slices(store, completions))
    return {prompt_id: Judged(prompts[prompt_id], texts[0]) for prompt_id, texts in drawn}


def revisions_of(store: Store, completions: Artifact, prompts: Artifact, judge: JudgeConfig, rounds: int) -> Revised:
    """Return the revisions of the first completion of each prompt.

    Raises:
        ConfigurationError: See `revise`.
    """
    asked, given = Judge(judge, store), first_completions(store, completions, PromptTable(prompts))
    progress = Progress(f"asking judge {judge.model}", 2 * rounds * len(given))
    texts = revise(asked, list(given.values()), rounds, lambda text: progress.advance(1))
    progress.close()
    rows = [(id_, each, text) for (id_, each), text in zip(given.items(), texts, strict=True) if text is not None]
    unchanged = sum(each.completion == text for _, each, text in rows)
    return Revised(rows, {"revised": len(rows) - unchanged, "unchanged": unchanged, "judge": asked.figures()})


def _preview(out: Draft, prompts: Artifact, rounds: int) -> tuple[Artifact, dict[str, Any]]:
    return pending(prompts.rows, out.provenance.stage), {"at most questions": 2 * rounds * prompts.rows}


@stage(version=1, preview=_preview, run_name="revising answers to {prompts.rows} prompts")
def revised_preferences(
    out: Draft, completions: Artifact, prompts: Artifact, judge: JudgeConfig, rounds: int = 1
) -> Artifact:
    """Make pairs of a completion, rejected, and its revision, chosen.

    Raises:
        ConfigurationError: No completion was changed; or see `revise`.
    """
    revised = revisions_of(out.store, completions, prompts, judge, rounds)
    rows = [
        {"prompt_id": id_, "messages": each.messages, "chosen": text, "rejected": each.completion, "margin": None}
        for id_, each, text in revised.rows
        if text != each.completion
    ]
    if not rows:
        raise ConfigurationError(f"judge {judge.model} left every completion as it was: no pair to learn from")
    return commit_rows(out, "preferences", rows, revised.stats)


@stage(version=1, preview=_preview, run_name="revising answers to {prompts.rows} prompts")
def revised_demonstrations(
    out: Draft, completions: Artifact, prompts: Artifact, judge: JudgeConfig, rounds: int = 1
) -> Artifact:
    """Make demonstrations of revisions."""
    revised = revisions_of(out.store, completions, prompts, judge, rounds)
    rows = [{"prompt_id": id_, "messages": each.messages, "completion": text} for id_, each, text in revised.rows]
    return commit_rows(out, "demonstrations", rows, revised.stats)
