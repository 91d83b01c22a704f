"""The model card of an aligned model: beside its files in the store, and as the first page of a repository."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template, TemplateError

from tasks.evaluation.tables import evaluation_page
from tasks.pipeline.pages import markdown_table
from tasks.pipeline.progress import warn
from tasks.pipeline.site import Site
from tasks.publishing.facts import (
    ModelFacts,
    Source,
    base_model,
    gather,
    is_ready,
    method_rows,
    settings,
)
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.filesystem import store_errors

CARD = "README.md"
HERE = "path/to/this/folder"
"""What the card calls the model where it is in no repository."""
NO_CARD = (DamagedArtifactError, TemplateError, LookupError, TypeError, ValueError)
"""What may keep a card from being written, as errors of the store may; an artifact of an earlier release among it."""


def card_text(facts: ModelFacts, repo: str | None = None, adapter: bool = False) -> str:
    """Return the model card in Markdown, with the head that the hub reads.

    Args:
        facts: What is known of the model.
        repo: The repository that it goes to; None: a folder.
        adapter: Whether only the adapter is there.
    """
    base, aligned, evaluation = base_model(facts), facts.made["aligned"], facts.made.get("evaluation")
    config = settings(facts)
    return _template().render(
        head=yaml.safe_dump(_head(base, adapter), sort_keys=False),
        base=base,
        licence=_licence(base),
        licence_known=bool(base.licence),
        made=aligned.created.partition("T")[0],
        run=facts.run.id,
        digest=aligned.digest,
        adapter=adapter,
        name=repo or HERE,
        **_start(facts, base),
        remote_code=bool(aligned.stats.get("trust_remote_code")),
        sampled="sampling" in facts.made["completions"].provenance.config,
        method=_lines(markdown_table(("step", "how"), method_rows(facts))),
        evaluation=_lines(_compared(evaluation)),
        reference=evaluation.stats.get("reference", "sft") if evaluation else "sft",
        verdicts=_lines(_verdicts(facts.run.verdicts)),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
        libraries=", ".join(f"{name} {version}" for name, version in aligned.libraries.items()),
    )


def write_card(site: Site) -> None:
    """Write the card of the run that has ended beside its aligned model; where that fails, warn.

    The manifest does not list the card: it informs, and two runs with one aligned model may compare it otherwise. The
    last run's card stands.
    """
    if site.record is None or "aligned" not in site.record.run.artifacts or site.record.run.is_pilot():
        return
    store, run = site.store, site.record.run
    try:
        facts = gather(store, run)
        content = next(iter(facts.made["aligned"].files.values())).path.partition("/")[0]
        store.write_beside(f"{run.artifacts['aligned']}/{content}", CARD, card_text(facts).encode())
    except store_errors(*NO_CARD) as error:
        warn(f"no model card was written beside the aligned model ({type(error).__name__}: {error})")


@lru_cache
def _template() -> Template:
    # Markdown, not HTML: what is put in is escaped where it stands in a table.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string((files("tasks.publishing") / "card.md.jinja").read_text())


def _head(base: Source, adapter: bool) -> dict[str, Any]:
    """Return what the hub reads of a card: no base model that it does not have, no licence that nobody named."""
    head: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if base.is_on_hub:
        head |= {"base_model": base.path, "base_model_relation": "adapter" if adapter else "finetune"}
    head |= {name: value for name, value in base.licence.items() if name != "file"}
    if head.get("license") == "other":
        head.setdefault("license_name", "other")
    return {**head, "tags": ["rs-dpo", "dpo", *(["lora"] if adapter else [])]}


def _licence(base: Source) -> str:
    if not base.licence:
        return f"unknown: check {base.place}"
    known = base.licence
    name = known.get("license_name") or known.get("license") or "named by a link only"
    link = f" ([text]({known['license_link']}))" if re.match("https?://", known.get("license_link", "")) else ""
    return f"{name}{link}, as its {known['file']} says"


def _start(facts: ModelFacts, base: Source) -> Mapping[str, str]:
    """Return what an adapter goes over: a policy that can be had by name, or the fine-tuned one in the store."""
    if is_ready(facts, "policy"):
        return {"start": base.place, "start_name": base.path}
    digest = facts.made["policy"].digest
    return {"start": f"the policy that was fine-tuned from {base.place}, digest `{digest}`", "start_name": "POLICY"}


def _compared(evaluation: Any) -> list[str]:
    if evaluation is None:
        return ["It was not compared with the policy that it started from."]
    if "policies" not in evaluation.stats:
        return ["Its comparison is of an earlier release, whose figures are in the store alone."]
    shown = Artifact(kind="evaluation", uri="", digest=evaluation.digest, stats=evaluation.stats)
    return evaluation_page(shown)


def _verdicts(verdicts: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [(str(each["name"]), str(each["level"]), str(each["text"])) for each in verdicts]
    return markdown_table(("monitor", "verdict", "what it says"), rows) or ["No monitors are recorded for this run."]


def _lines(lines: list[str]) -> str:
    return "\n".join(lines).strip()
