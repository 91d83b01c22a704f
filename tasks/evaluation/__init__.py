"""How policies compare. Imports rewards and what is below it.

named_rewards.py  what rewards are called, and by which policies are ranked
drawn.py          completions of a policy with every reward
comparison.py     win rates and figures
divergence.py     KL from the reference
likelihood.py     how likely the reference finds what a policy says
intervals.py      bootstrap over prompts
tables.py         an evaluation as a table
"""
