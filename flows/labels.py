"""Which preferences the reward models of a run are trained on: those that were given, or labels of its completions."""

from flows.inputs import Inputs
from tasks.config.judges import JudgeConfig
from tasks.judged_preferences import judge_preferences
from tasks.pipeline.site import Site
from tasks.preferences import label_preferences
from tasks.store.artifacts import Artifact


def label_or_load(site: Site, given: Inputs, completions: Artifact, prompts: Artifact) -> Artifact:
    """Return pairs of the completions as the gold reward or a judge prefers them, where that is asked for."""
    if given.labels is None:
        return given.preferences
    if isinstance(given.labels, JudgeConfig):
        return judge_preferences(site, completions, prompts, given.labels)
    return label_preferences(site, completions, prompts, given.labels)
