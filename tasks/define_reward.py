"""Rewards that are no models come into the store: what gives them, and under which settings."""

import inspect
import json
from importlib import import_module
from pathlib import Path

from tasks.config.rewards import RewardSource
from tasks.config.sections import Function
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.rewards.functions import function_digest, load_function
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft


def find_reward(site: Site, name: str, source: RewardSource) -> Artifact:
    """Return a reward that is a function, after checking that it loads.

    Its stats tell how it is called; they are the run's, whatever an earlier run was configured with.

    Raises:
        ConfigurationError: The function does not exist, or does not take its options.
    """
    load_function(source.called)
    defined = define_reward(site, source.called, function_digest(source.called))
    return defined.model_copy(update={"stats": {"name": name, "source": source.model_dump(mode="json")}})


@stage(version=1)
def define_reward(out: Draft, function: Function, digest: str) -> Artifact:
    """Keep the source of a function that gives rewards."""
    module = import_module(function.function.partition(":")[0])
    path = inspect.getsourcefile(module)
    assert path is not None  # or it would have no digest
    told = json.dumps(function.model_dump(mode="json"), indent=2, sort_keys=True)
    return out.commit("function", {"reward.json": told.encode(), "source.py": Path(path)}, digest)
