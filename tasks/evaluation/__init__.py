"""How policies compare. Imports rewards and what is below it.

named_rewards.py  by which reward policies are ranked
drawn.py          completions of a policy with every reward
combined.py       the reward that is made of several
comparison.py     win rates and figures
divergence.py     KL from the reference
likelihood.py     how likely the reference finds what a policy says
along.py          rewards along a training: which model is best, and whether a held-out reward falls
intervals.py      bootstrap over prompts
tables.py         an evaluation as a table
"""
