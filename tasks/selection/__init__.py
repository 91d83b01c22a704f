"""Which pairs of completions to train on. Pure numpy: no store, no model, no Prefect. Imports config.

pairs.py          pairs as indices, and what a strategy selects them from
threshold.py      RS-DPO: sigma((r_j - r_l) / tau) > eta
best_vs_worst.py  the highest reward against the lowest
best_vs_random.py the highest reward against a random lower one
best_vs_low.py    the highest reward against mean - 2 standard deviations
best_overall.py   the highest rewards over all prompts
statistical_rejection.py  RSO: accepted completions, in games of two
pareto.py         above the threshold by each of several rewards
annotation.py     the data set's own pairs
random_control.py    control: as many random pairs of like lengths
shuffled_control.py  control: the threshold's pairs with swapped sides
filters.py        which prompts give no pair, whatever the strategy
caps.py           which pairs of a prompt stay where it has too many
max_pairs.py      which pairs stay where there are too many in all
draws.py          what is drawn at random, from the seed and the prompt alone
terms.py          what each of several rewards counts for
combination.py    several rewards as one
length_fit.py     what the length alone predicts of a reward
strategies.py     the strategies by name, and the section `pairs`
counts.py         what is recorded of a selection
profile.py        what a scored table looks like, whatever is selected from it
histogram.py      a histogram of numbers that come in parts
"""
