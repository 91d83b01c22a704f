"""What the rewards of an evaluation are called, and by which of them policies are ranked."""

from tasks.config.errors import ConfigurationError
from tasks.pipeline.configuration import Config

GOLD, PROXY, HELD_OUT = "gold", "reward_model", "held_out_model"
"""The gold reward; the reward model by which pairs are selected; the one that only evaluates."""


def ranked_by(wanted: str | None, config: Config) -> str:
    """Return the reward by which policies are ranked: the wanted one, else the gold one where there is one.

    Raises:
        ConfigurationError: No run of the configuration would have the reward.
    """
    there = {
        GOLD: config.evaluation.gold_reward is not None,
        PROXY: True,
        HELD_OUT: config.reward_model.held_out,
    }
    known = [name for name, is_there in there.items() if is_there]
    if wanted is not None and wanted not in known:
        raise ConfigurationError(f"reward = {wanted!r} is no reward of a run: there are {', '.join(known)}")
    return wanted or known[0]
