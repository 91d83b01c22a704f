"""The curve of rewards against KL in a report."""

from tasks.report.along import along_the_way
from tasks.report.page import report_page


def policy(kl, **means):
    rewards = {name: {"mean": mean, "std": 2.0} for name, mean in means.items()}
    return {"rewards": rewards, **({} if kl is None else {"divergence": {"kl_sequence": kl}})}


def test_gains_are_in_deviations_of_the_reference_and_in_order_of_kl(facts_of):
    facts = facts_of([("q", "a", "b", 0.0, 1.0)])
    along = {"sft": policy(None, gold=1.0, reward_model=0.0), "step-4": policy(2.0, gold=3.0, reward_model=1.0)}
    made = facts.artifacts["evaluate_policy"]
    facts.curve = made.model_copy(update={"stats": {"reference": "sft", "policies": along}})
    end = {"sft": along["sft"], "aligned": policy(5.0, gold=0.0, reward_model=4.0)}
    last = made.model_copy(update={"stats": {"reference": "sft", "policies": end}})
    facts.artifacts["evaluate_policy"] = last
    (plot,) = along_the_way(facts)
    assert "gold: from 0 to -0.5" in plot.alt
    assert "reward model: from 0 to 2" in plot.alt


def test_without_models_along_the_way_there_is_no_curve(facts_of):
    facts = facts_of([("q", "a", "b", 0.0, 1.0)])
    assert list(along_the_way(facts)) == []
    assert b"by KL from the reference" not in report_page(facts)
