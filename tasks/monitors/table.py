"""The monitors: a row each. Add one by writing its row; its thresholds become a field of the section `monitors`.

A range is where we, or the source that the row names, saw runs that were sound; a run outside of it is to be looked at,
and need not be wrong. "Ours" stands for runs of the shipped configurations (docs/report.md lists all).
"""

from typing import NamedTuple

from tasks.monitors import measures
from tasks.monitors.measures import Measure


class Monitor(NamedTuple):
    """What is measured, where it is healthy, and what to do where it is not."""

    name: str
    stage: str
    """The stage whose stats it measures, as soon as they are there."""
    measured: str
    """What is measured, with its unit."""
    measure: Measure
    low: float | None
    """Least healthy value; None: any."""
    high: float | None
    """Greatest healthy value; None: any."""
    source: str
    """Where the range comes from."""
    outside: str
    """What a value outside of the range means."""
    remedy: str


MONITORS: tuple[Monitor, ...] = (
    Monitor(
        "reward_accuracy",
        "train_reward_model",
        "lower end of the 95% interval of the reward model's accuracy on held-out pairs",
        measures.recorded("accuracy_low"),
        low=0.5,
        high=None,
        source="chance is .5; on HH reward models reach about .6 to .75 (arXiv:2204.05862)",
        outside="the reward model is not told from a coin, so its pairs may be noise",
        remedy="hold out more pairs (reward_model.evaluation_fraction), or train on more preferences",
    ),
    Monitor(
        "reward_calibration",
        "train_reward_model",
        "calibration error of the reward model on held-out pairs, at tau 1",
        measures.recorded("ece"),
        low=None,
        high=0.15,
        source="arXiv:1706.04599: deep networks have .04 to .17 before temperature scaling; the bound is ours",
        outside="sigma(reward gap) is not how often the reward model is right, so eta is not the probability it seems",
        remedy="set pairs.tau to the tau that the report names, or train the reward model for fewer epochs",
    ),
    Monitor(
        "sampling_truncation",
        "sample_completions",
        "share of the sampled completions that are cut at max_new_tokens",
        measures.recorded("truncation_rate"),
        low=None,
        high=0.2,
        source="ours",
        outside="many rewards are for half an answer",
        remedy="raise sampling.max_new_tokens, or set sampling.stop",
    ),
    Monitor(
        "unique_completions",
        "build_pairs",
        "share of a prompt's completions that differ from its others",
        measures.recorded("profile", "unique_share"),
        low=0.3,
        high=None,
        source="ours; .9 and more with free text at temperature 1",
        outside="most completions are drawn several times, so k is smaller than it seems",
        remedy="raise sampling.temperature or top_p, or lower k",
    ),
    Monitor(
        "prompts_with_pair",
        "build_pairs",
        "share of the prompts that have a pair",
        measures.share_with_pair,
        low=0.3,
        high=None,
        source="ours",
        outside="most prompts teach nothing",
        remedy="lower pairs.eta or tau, or raise sampling.k or temperature",
    ),
    Monitor(
        "reward_ties",
        "build_pairs",
        "share of possible pairs whose rewards are equal",
        measures.recorded("profile", "tie_share"),
        low=None,
        high=0.5,
        source="ours; equal texts have equal rewards",
        outside="the reward does not tell most completions apart",
        remedy="draw more varied completions, or take a finer reward",
    ),
    Monitor(
        "longer_chosen",
        "build_pairs",
        "share of the pairs whose chosen side is the longer one (as long: half)",
        measures.recorded("profile", "longer_chosen_share"),
        low=0.3,
        high=0.7,
        source="arXiv:2310.03716 on how much of a reward is length; the bounds are ours",
        outside="the pairs teach length rather than quality",
        remedy="read pairs of both kinds; cap pairs, or take a reward model that is less taken with length",
    ),
    Monitor(
        "reward_length",
        "build_pairs",
        "correlation of reward and length within a prompt",
        measures.recorded("profile", "length_correlation_within_prompt"),
        low=-0.6,
        high=0.6,
        source="arXiv:2310.03716; the bounds are ours",
        outside="the reward is little more than a length",
        remedy="look at the longest and shortest completions of a few prompts",
    ),
    Monitor(
        "chosen_log_ratio",
        "train_dpo",
        "log pi(chosen) / pi_ref(chosen) at the end of the training, nats a completion",
        measures.trained("chosen_log_ratio"),
        low=-20.0,
        high=None,
        source="arXiv:2402.13228, arXiv:2404.19733: it may fall while the margin rises; the bound is ours",
        outside="DPO makes the chosen completions less likely too: probability moves to what nobody has rated",
        remedy="lower dpo.learning_rate or epochs, or add a likelihood term (dpo.loss_type: [sigmoid, sft])",
    ),
    Monitor(
        "held_out_accuracy",
        "train_dpo",
        "share of held-out pairs whose margin is above zero",
        measures.recorded("held_out", "accuracy"),
        low=0.55,
        high=None,
        source="chance is .5; the bound is ours",
        outside="what DPO has learned does not carry over to prompts that it has not seen",
        remedy="take more prompts, fewer epochs, or clearer pairs (pairs.eta)",
    ),
    Monitor(
        "kl_sequence",
        "evaluate_policy",
        "KL from the reference, nats a completion",
        measures.divergence("kl_sequence"),
        low=None,
        high=25.0,
        source="arXiv:2210.10760: beyond some KL the gold reward falls while the proxy rises; the bound is ours",
        outside="the policy is far from where it began, where the reward model has seen little",
        remedy="raise dpo.beta, or lower dpo.learning_rate or epochs; then compare samples",
    ),
    Monitor(
        "kl_token",
        "evaluate_policy",
        "KL from the reference, nats a token",
        measures.divergence("kl_token"),
        low=None,
        high=0.3,
        source="ours: .14 in the quickstart, whose samples read well; .7 to 1.6 where words fell apart",
        outside="each token is drawn from quite another distribution than the reference's",
        remedy="raise dpo.beta, or lower dpo.learning_rate or epochs; then compare samples",
    ),
    Monitor(
        "foreign_text",
        "evaluate_policy",
        "the reference's perplexity of the policy's completions, over that of its own",
        measures.perplexity_ratio,
        low=None,
        high=1.5,
        source="ours: .7 to 1.2 in runs whose samples read well",
        outside="the policy writes what the reference would never write: it may be broken text",
        remedy="read the samples; raise dpo.beta, or lower dpo.learning_rate or epochs",
    ),
    Monitor(
        "length",
        "evaluate_policy",
        "mean length of the policy's completions, over the reference's",
        measures.ratio("mean_tokens"),
        low=0.6,
        high=1.6,
        source="ours: an instruction model once went from 26.6 to 9.4 tokens while its reward rose",
        outside="the policy has found that the reward likes answers of another length",
        remedy="compare samples; see longer_chosen; take a reward that shortness or length alone does not satisfy",
    ),
    Monitor(
        "repetition",
        "evaluate_policy",
        "share of 3-grams that a completion has had before, less the reference's share",
        measures.rise("repetition"),
        low=None,
        high=0.05,
        source="arXiv:1908.04319: about .01 in human text (4-grams); the bound is ours",
        outside="the policy goes round in circles",
        remedy="read the samples; lower dpo.learning_rate or epochs, or raise sampling.max_new_tokens",
    ),
    Monitor(
        "diversity",
        "evaluate_policy",
        "distinct-2 over all completions, over the reference's",
        measures.ratio("distinct_2"),
        low=0.5,
        high=None,
        source="arXiv:2310.06452: preference training narrows what is said; the bound is ours",
        outside="the policy says the same on every prompt",
        remedy="read the samples of several prompts; raise dpo.beta",
    ),
    Monitor(
        "truncation",
        "evaluate_policy",
        "share of completions cut at max_new_tokens, less the reference's share",
        measures.rise("truncation_rate"),
        low=None,
        high=0.1,
        source="ours",
        outside="the policy does not end its answers any more",
        remedy="set pairs.truncated to drop or never_chosen, or raise sampling.max_new_tokens",
    ),
    Monitor(
        "win_rate",
        "evaluate_policy",
        "lower end of the 95% interval of the win rate over the reference",
        measures.least_win_rate,
        low=0.5,
        high=None,
        source="a policy that has learned nothing wins half",
        outside="by this reward the policy is not told from the reference, or is worse",
        remedy="evaluate on more prompts (data.max_evaluation_prompts, evaluation.k), or train on more pairs",
    ),
    Monitor(
        "truncated_win_rate",
        "evaluate_policy",
        "win rate, less the win rate without truncated completions",
        measures.win_rate_of_truncated,
        low=None,
        high=0.1,
        source="ours",
        outside="the win rests on completions that are cut off",
        remedy="raise sampling.max_new_tokens, and look at the win rate without truncated completions",
    ),
    Monitor(
        "over_optimisation",
        "evaluate_policy",
        "win rate by the reward model that pairs were selected by, less that by another reward",
        measures.win_rate_of_proxy,
        low=None,
        high=0.15,
        source="arXiv:2210.10760: the proxy rises on while the gold reward falls; the bound is ours",
        outside="the policy pleases its reward model more than what the reward model stands for",
        remedy="raise dpo.beta, stop earlier, or train the reward model on more preferences",
    ),
    Monitor(
        "held_out_fall",
        "evaluate_policy",
        "fall of a held-out reward from its best model along the training to the last one, or the rise of the proxy "
        "meanwhile where that is less, in standard errors over prompts",
        measures.fall_of_held_out,
        low=None,
        high=4.0,
        source="arXiv:2210.10760; the bound is ours: of simulated trainings without a fall, with 20 prompts or more, "
        "and 20 models or fewer, it doubts fewer than 1 in 100",
        outside="from there on the policy pleases its reward model more, and what the reward model stands for less",
        remedy="set dpo.keep to best, which keeps the model before the fall; or raise dpo.beta, or stop earlier",
    ),
)
"""In the order in which they are judged."""
