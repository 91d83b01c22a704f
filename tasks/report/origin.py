"""Where a run comes from: inputs by digest, the resolved configuration, versions, and how to repeat it."""

import yaml

from tasks.planning.costs import stage_of
from tasks.report.blocks import Code, Section, Table
from tasks.report.facts import Facts

COMMAND = ".venv/bin/python -m flows.rs_dpo run.yaml"


def origin_section(facts: Facts) -> Section:
    """Return what the run was made from, and the command that repeats it."""
    rows = []
    libraries: dict[str, str] = {}
    for stage, artifact in facts.artifacts.items():
        inputs = ""
        if artifact and artifact.uri.startswith(facts.store.uri):
            manifest = facts.manifest(stage)
            if manifest.provenance.stage != stage_of(stage):  # an input that was taken as it is
                continue
            libraries = manifest.libraries
            found = manifest.provenance.inputs.items()
            inputs = ", ".join(f"{name} {digest[:12]}" for name, digest in found if digest)
        if artifact:
            rows.append((stage, artifact.digest[:12] or "-", inputs))
    settings = facts.config.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    repeat = f"{COMMAND}    # the configuration above, saved as run.yaml"
    versions = Table(("library", "version of what was made last"), sorted(libraries.items()))
    return Section(
        "Where does it come from?",
        [
            Table(("stage", "digest", "inputs"), rows),
            Code(text, "Configuration: what differs from the defaults"),
            Code(repeat, "The command that repeats it"),
            versions,
        ],
    )
