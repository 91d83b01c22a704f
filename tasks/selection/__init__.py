"""Which pairs of completions to train on. Pure numpy: no store, no model, no Prefect. Imports config.

pairs.py          pairs as indices, and what a strategy selects them from
threshold.py      RS-DPO: sigma((r_j - r_l) / tau) > eta
best_vs_worst.py  the highest reward against the lowest
annotation.py     the data set's own pairs
caps.py           which pairs of a prompt stay where it has too many
draws.py          what is drawn at random, from the seed and the prompt alone
strategies.py     the strategies by name, and the section `pairs`
counts.py         what is recorded of a selection
profile.py        what a scored table looks like, whatever is selected from it
histogram.py      a histogram of numbers that come in parts
"""
