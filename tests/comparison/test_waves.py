"""In which order runs go that are side by side: no two of one wave share what is not there yet."""

import itertools

from arm_loads import load

from tasks.comparison.arms import ComparisonConfig, configurations, expand
from tasks.comparison.waves import SHARED, waves


def ordered(seeds, **arms):
    asked = ComparisonConfig(base="x", arms=arms, seeds=tuple(range(seeds)))
    runs = configurations(asked, expand(asked), load)
    return waves(runs), runs


def test_the_first_run_goes_alone_and_then_the_first_of_each_seed():
    found, _ = ordered(3, a={}, b={"pairs.eta": 0.9}, c={"pairs.eta": 0.8})
    assert found == [
        [("a", 0)],
        [("a", 1), ("a", 2), ("b", 0), ("c", 0)],
        [("b", 1), ("b", 2), ("c", 1), ("c", 2)],
    ]


def test_arms_of_the_same_pairs_wait_for_the_first_of_them():
    found, _ = ordered(1, a={}, b={"pairs.eta": 0.9}, c={"pairs.eta": 0.9, "dpo.beta": 0.2}, d={"dpo.beta": 0.2})
    assert found == [[("a", 0)], [("b", 0), ("d", 0)], [("c", 0)]]


def test_arms_of_one_weak_reward_model_wait_for_the_first_of_them():
    weak = {"reward_model.max_steps": 5}
    found, _ = ordered(2, strong={}, weak=weak, other={**weak, "pairs.eta": 0.9})
    assert found[1] == [("strong", 1), ("weak", 0)]
    assert found[2] == [("weak", 1), ("other", 0)]


def test_runs_of_rloo_do_not_stand_for_completions_that_others_draw():
    found, _ = ordered(1, online={"algorithm": "rloo"}, a={}, b={"pairs.eta": 0.9})
    assert found == [[("a", 0)], [("b", 0), ("online", 0)]]


def test_every_run_has_one_wave_and_shares_nothing_new_within_it():
    arms = {
        f"a{n}": {"pairs.eta": 0.8 + n % 3 / 20, "sampling.k": 8 + n // 3, "dpo.beta": 0.1 + n / 50} for n in range(6)
    }
    found, runs = ordered(2, **arms)
    assert sorted(itertools.chain(*found)) == sorted(runs)
    there = set()
    for wave in found:
        new = [{runs[key].model_dump_json(include=own) for own in SHARED} - there for key in wave]
        assert all(not one & other for one, other in itertools.combinations(new, 2))
        there |= set().union(*new)
