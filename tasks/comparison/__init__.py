"""Several ways to align one policy, compared at equal footing. Imports report and what is below it.

arms.py         what is compared: arms of a configuration, seeds, and what is refused
algorithms.py   what aligns an arm's policy, and which overrides it reads
differences.py  how two arms differ over prompts and seeds, and whether they can be told apart
frontier.py     curves of reward against KL, and the reward at one KL
best_of_n.py    the best of several completions, without any training
results.py      what each run of an arm has left
outcome.py      what came out: tables and sentences
page.py         the page of a comparison
"""
