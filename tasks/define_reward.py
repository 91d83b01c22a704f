"""Rewards that are no models come into the store: what gives them, and under which settings."""

import inspect
import json
from importlib import import_module
from pathlib import Path

from tasks.config.judges import JudgeConfig
from tasks.config.rewards import RewardSource
from tasks.config.sections import Function
from tasks.judges.endpoint import key_of
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.rewards.functions import function_digest, load_function
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import Draft, canonical_json


def find_reward(site: Site, name: str, source: RewardSource) -> Artifact:
    """Return a reward that is a function or a judge, after checking that it could be called.

    Its stats tell how it is called; they are the run's, whatever an earlier run was configured with.

    Raises:
        ConfigurationError: The function does not exist, or does not take its options; or the judge's key is not set.
    """
    if source.judge is not None:
        key_of(source.judge)
        defined = define_judge(site, source.judge)
    else:
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


@stage(version=1)
def define_judge(out: Draft, judge: JudgeConfig) -> Artifact:
    """Keep what a judge is asked."""
    told = json.dumps(judge.model_dump(mode="json"), indent=2, sort_keys=True)
    return out.commit("judge", {"judge.json": told.encode()}, sha256_of(canonical_json(judge.key_fields()).encode()))
