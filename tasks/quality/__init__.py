"""How good a reward is, whatever makes it: judged on sets of answers. Imports report and what is below it.

settings.py   what is judged, and on which sets
formats.py    how a set's rows are written
answers.py    a set read: prompts, completions, and what is known of them
kept.py       a set in the store, so that each reward scores it once
accuracy.py   how often a reward prefers the chosen side, by category
sections.py   RewardBench's sections and their weights
agreement.py  how far two rewards rank a prompt's completions alike
best_of.py    what the best of n completions by a reward is worth
edits.py      changes to a completion that should not make it better
bias.py       what such a change does to a reward
found.py      everything that was found, as rows
page.py       the page
"""
