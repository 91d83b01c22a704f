"""Where trainings report to: trackers that are not installed are refused; TensorBoard's files go into the store."""

from pathlib import Path

from tasks.config.errors import ConfigurationError
from tasks.config.training import Training

EVENTS = "tensorboard"
"""Folder of TensorBoard's files, in a checkpoint and in an artifact."""
NO_TRACKER = ("none", "all")
PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""Tracker -> the package that has it, where that has another name."""


def check_trackers(section: Training) -> None:
    """Refuse trackers that this process could not report to.

    Raises:
        ConfigurationError: Names the tracker, and the command that installs it.
    """
    if not (wanted := section.extra.get("report_to")):
        return
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for tracker in [wanted] if isinstance(wanted, str) else wanted:
        given = f"{section.section}.extra.report_to = {tracker!r}"
        if tracker not in (*NO_TRACKER, *INTEGRATION_TO_CALLBACK):
            known = ", ".join(sorted({*NO_TRACKER, *INTEGRATION_TO_CALLBACK}))
            raise ConfigurationError(f"{given} is no tracker that transformers knows: take one of {known}")
        if tracker not in (*NO_TRACKER, *get_available_reporting_integrations()):
            command = f"python -m pip install {PACKAGES.get(tracker, tracker)}"
            raise ConfigurationError(f"{given} is not installed here: {command}, or leave it out")


def event_files(*folders: Path) -> dict[str, bytes]:
    """Return TensorBoard's files below folders, numbered in their order, by their names in an artifact.

    As bytes, since the writer's thread may add to a file meanwhile. TensorBoard shows all of a folder as one run.
    """
    # A name begins with the time when the file was begun, and ends with the host's, which could be any.
    found = [path for folder in folders for path in sorted(folder.rglob("events.out.tfevents.*"), key=lambda p: p.name)]
    return {f"{EVENTS}/events.out.tfevents.{number:03}": path.read_bytes() for number, path in enumerate(found)}
