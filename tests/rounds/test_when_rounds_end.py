"""When rounds end, and which of them is kept."""

import pytest
from runs import ROOT

from flows.config_files import read_file
from flows.rounds import history_of, round_config
from tasks.rounds.outcome import Round, best_round, read_round, why_ended
from tasks.rounds.page import every_reward, rounds_page
from tasks.rounds.settings import RoundsConfig
from tasks.store.artifacts import Artifact

POLICY = Artifact(kind="model", uri="u", digest="d")


def rounds(*gains_and_kl):
    return [Round(n, POLICY, 1 + gain, 1.0, kl, 0.6, 10, 5.0, {}) for n, (gain, kl) in enumerate(gains_and_kl, 1)]


def test_every_reward_has_its_curve_where_there_are_several():
    done = [
        own._replace(gains={"gold": gain, "reward_model": 1.5})
        for own, gain in zip(rounds((1, 2), (2, 4)), (0.5, -1), strict=True)
    ]
    (plot,) = every_reward(done)
    assert "gold: from 0 to -1" in plot.alt
    assert "reward model: from 0 to 1.5" in plot.alt
    assert plot.svg in rounds_page(done, "store", "").decode()
    assert every_reward([own._replace(gains={"gold": 1.0}) for own in done]) == []


def test_a_round_s_gains_are_in_deviations_of_the_sft_policy():
    def policy(mean, other):
        return {"rewards": {"r": {"mean": mean, "std": 2.0}, "none": {"mean": other, "std": other}}, "mean_tokens": 3}

    own = policy(5.0, None) | {"win_rates": {"r": None}, "divergence": {"kl_sequence": 1.0}}
    stats = {"reference": "sft", "policies": {"sft": policy(1.0, None), "aligned": own}}
    evaluation = Artifact(kind="evaluation", uri="u", digest="d", stats=stats)
    found = read_round(1, {"evaluation": evaluation, "aligned": POLICY}, 3, "r")
    assert (found.gain, found.gains) == (4.0, {"r": 2.0})


def config(**fields):
    return RoundsConfig(base="x", **{"rounds": 5, **fields})


@pytest.mark.parametrize(
    ("done", "settings", "ended", "best"),
    [
        (rounds((1, 2)), {}, None, 1),
        (rounds((1, 2), (2, 4)), {"rounds": 2}, "rounds = 2 are done", 2),
        (rounds((1, 2), (1, 4)), {}, "no round since 1 has gained more, and patience = 1", 1),
        (rounds((1, 2), (0.5, 4)), {"patience": 2}, None, 1),
        (rounds((1, 2), (0.5, 4), (0.9, 6)), {"patience": 2}, "no round since 1 has gained more, and patience = 2", 1),
        (rounds((1, 2), (0.5, 4), (1.1, 6)), {"patience": 2}, None, 3),
        (rounds((1, 2), (3, 9)), {"max_kl": 8}, "round 2 is 9.0 nats from the SFT policy, beyond max_kl = 8", 1),
    ],
)
def test_rounds_end_and_the_best_one_is_kept(done, settings, ended, best):
    assert why_ended(done, config(**settings)) == ended
    assert best_round(done, config(**settings)).number == best


def test_a_round_beyond_the_budget_is_never_the_best():
    assert best_round(rounds((9, 50)), config(max_kl=8)) is None
    assert "beyond max_kl" in why_ended(rounds((9, 50)), config(max_kl=8))


def test_the_page_is_a_curve_and_a_table():
    page = rounds_page(rounds((1, 2), (2, 4)), "store", "the best is round 2").decode()
    assert page.count("<svg") == 1
    assert "from 0 to 2" in page


def test_a_reward_model_that_is_ready_cannot_be_refreshed_and_one_on_a_file_can(monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = RoundsConfig(base="configs/quickstart.yaml", reward_model="refreshed")
    assert round_config(settings, 2).sampling.seed == 1
    ready = settings.model_copy(update={"set": {"reward_model.ready_model": "somewhere"}})
    with pytest.raises(ValueError, match=r"leave reward_model\.ready_model out, or set fixed"):
        round_config(ready, 1)


def test_a_longer_loop_shares_its_history_and_another_source_of_preferences_does_not(monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = RoundsConfig(base="configs/quickstart.yaml", reward_model="refreshed")
    same = {"rounds": 9, "patience": 4, "max_kl": 3, "set": {"store": "elsewhere", "monitors.kl_sequence.high": 9}}
    assert history_of(settings.model_copy(update=same)) == history_of(settings)
    for other in (
        {"keep_pairs": True},
        {"set": {"data.preferences": "added"}},
        {"set": {"data.preferences": "p.jsonl"}},
    ):
        assert history_of(settings.model_copy(update=other)) != history_of(settings)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("rounds*.yaml")), ids=lambda path: path.name)
def test_shipped_rounds_are_valid_and_no_two_share_a_seed(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = RoundsConfig.model_validate(read_file(str(path), []))
    configs = [round_config(settings, number) for number in (1, 2, 3)]
    assert [each.sampling.seed for each in configs] == [0, 1, 2]
    assert [each.evaluation.seed for each in configs] == [1, 2, 3]
