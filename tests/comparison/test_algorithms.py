"""Which algorithm an arm has, and that it reads what it is given."""

import pytest
from runs import ROOT

from flows.config_files import load_values
from tasks.comparison.arms import ComparisonConfig, configurations, expand
from tasks.config.errors import ConfigurationError
from tasks.pipeline.configuration import RlooRun

BASE = str(ROOT / "configs" / "quickstart.yaml")
ONLINE = {"algorithm": "rloo", "rloo.max_steps": 5}


def runs(**fields):
    asked = ComparisonConfig.model_validate({"base": BASE, "arms": {"a": {}, "online": ONLINE}} | fields)
    return configurations(asked, expand(asked), load_values)


def test_an_arm_has_the_algorithm_that_it_asks_for():
    found = runs(seeds=[3])
    assert [type(config).__name__ for config in found.values()] == ["Config", "RlooRun"]
    online = found["online", 3]
    assert isinstance(online, RlooRun)
    assert (online.rloo.max_steps, online.rloo.seed, online.evaluation.seed) == (5, 3, 3)
    assert "dpo" not in online.sections()
    assert online.rollouts.max_new_tokens == 40, "as the base samples"


def test_overrides_of_every_arm_go_to_those_that_read_them():
    found = runs(seeds=[0], set={"dpo.snapshots": 2, "rloo.snapshots": 4, "sampling.max_new_tokens": 7})
    offline, online = found["a", 0], found["online", 0]
    assert (offline.alignment.snapshots, online.alignment.snapshots) == (2, 4)
    assert offline.sampling.max_new_tokens == online.rollouts.max_new_tokens == 7


def test_truncated_completions_are_dealt_with_alike():
    found = runs(seeds=[0], set={"pairs.truncated": "keep"})
    assert found["a", 0].pairs.truncated == found["online", 0].rollouts.truncated == "keep"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": {"a": {"algorithm": "ppo"}}}, "algorithm = 'ppo' must be one of rs_dpo, rloo"),
        ({"arms": {"a": {"rloo.beta": 0.1}}}, "rloo.beta is not read with algorithm = rs_dpo"),
        ({"arms": {"a": ONLINE | {"dpo.beta": 0.2}}}, "dpo.beta is not read with algorithm = rloo"),
        ({"arms": {"a": ONLINE | {"pairs.eta": 0.9}}}, "pairs.eta is not read with algorithm = rloo"),
        ({"arms": {"a": ONLINE | {"rloo.seed": 1}}}, "rloo.seed is moved by `seeds`"),
        ({"arms": {"a": {}}, "set": {"rloo.beta": 0.1}}, "rloo.beta in `set` is read by no arm"),
        ({"arms": {"a": ONLINE}, "set": {"dpo.beta": 0.1}}, "dpo.beta in `set` is read by no arm"),
        ({"arms": {"a": ONLINE}, "size_matched": True}, "size_matched = true needs an arm that has pairs"),
        ({"arms": {"a": ONLINE | {"pairs.truncated": "never_chosen"}}}, "pairs.truncated = 'never_chosen' cannot be"),
        ({"arms": {"a": ONLINE | {"sampling.stop": [["."]]}}}, "sampling.stop = .* cannot be with RLOO"),
        ({"arms": {"a": ONLINE | {"data.pilot": 5}}}, "data.pilot = 5 cannot be with RLOO"),
    ],
)
def test_what_nothing_would_read_is_refused(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        runs(**fields)
