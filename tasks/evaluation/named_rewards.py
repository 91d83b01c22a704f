"""By which of its rewards the policies of a run are ranked."""

from tasks.config.errors import ConfigurationError
from tasks.config.rewards import GOLD
from tasks.pipeline.configuration import Config


def ranked_by(wanted: str | None, config: Config) -> str:
    """Return the reward by which policies are ranked: the wanted one, else the gold one, else what pairs come from.

    Raises:
        ConfigurationError: No run of the configuration would have the reward.
    """
    gold = [GOLD] if config.evaluation.gold_reward is not None else []
    known = list(dict.fromkeys([*gold, config.proxy, *config.reward_models, *config.rewards]))
    known = [name for name in known if f"{name}.1" not in config.reward_models]  # an ensemble: its members are there
    if wanted is not None and wanted not in known:
        raise ConfigurationError(f"reward = {wanted!r} is no reward of a run: there are {', '.join(known)}")
    return wanted or known[0]
