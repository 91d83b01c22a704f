"""Judged preferences: reads completions, writes pairs of them as a judge prefers (RLAIF, arXiv:2309.00267)."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.data.conversations import Messages
from tasks.data.loading import commit_rows
from tasks.data.prompt_table import PromptTable
from tasks.judges.judge import Judge
from tasks.pipeline.dry_run import pending
from tasks.pipeline.progress import Progress
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.slices import read_slices, texts_by_prompt


class Pair(NamedTuple):
    """Two completions of a prompt."""

    prompt_id: str
    messages: Messages
    first: str
    second: str


def pairs_of(store: Store, completions: Artifact, prompts: PromptTable) -> Iterator[Pair]:
    """Yield the neighbours 0-1, 2-3, ... of each prompt's completions, but for equal texts."""
    for prompt_id, texts in texts_by_prompt(read_slices(store, completions)):
        for first, second in zip(texts[0::2], texts[1::2], strict=False):
            if first != second:
                yield Pair(prompt_id, prompts[prompt_id], first, second)


def preferred_rows(pairs: Sequence[Pair], wins: Sequence[float]) -> list[dict[str, Any]]:
    """Return the pairs that a judge decided as rows of a preferences table.

    Args:
        pairs: What was judged.
        wins: What the first of each wins, as `Judge.compare` returns it; ties and NaN are left out.
    """
    return [
        {
            "prompt_id": pair.prompt_id,
            "messages": pair.messages,
            "chosen": pair.first if win == 1 else pair.second,
            "rejected": pair.second if win == 1 else pair.first,
            "margin": None,
        }
        for pair, win in zip(pairs, wins, strict=True)
        if win in (0, 1)
    ]


def _preview(completions: Artifact) -> tuple[Artifact, dict[str, Any]]:
    pairs = completions.rows // 2
    return pending(pairs, "judge_preferences"), {"pairs": pairs, "at most questions": 2 * pairs}


@stage(version=1, preview=_preview, run_name="judging pairs of {completions.rows} completions")
def judge_preferences(out: Draft, completions: Artifact, prompts: Artifact, judge: JudgeConfig) -> Artifact:
    """Let a judge prefer one of each two neighbouring completions of a prompt; what it has said before is not asked.

    Raises:
        ConfigurationError: It prefers neither of any two; or see `Judge.ask`.
    """
    asked = Judge(judge, out.store)
    known = PromptTable(prompts)
    pairs = list(pairs_of(out.store, completions, known))
    given = [known.reference(each.prompt_id) for each in pairs]
    progress = Progress(f"asking judge {judge.model}", 2 * len(pairs))
    wins = asked.compare([each[1:] for each in pairs], given, lambda verdict: progress.advance(1)).tolist()
    progress.close()
    rows = preferred_rows(pairs, wins)
    if not rows:
        raise ConfigurationError(
            f"judge {judge.model} prefers neither of any two completions ({len(pairs)} pairs of different texts): "
            "nothing to learn from; draw with a higher sampling.temperature, or take another judge"
        )
    stats = {"labelled": len(rows), "ties": wins.count(0.5), "judge": asked.figures()}
    return commit_rows(out, "preferences", rows, stats)
