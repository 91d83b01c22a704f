"""What a whole run will find and cost, told from a pilot of some of its prompts. Imports evaluation and below.

pilot.py        what a pilot does less of
estimates.py    totals over all prompts from a random part of them, with intervals
observed.py     what the prompts of a pilot have: pairs, tokens, different completions
costs.py        what the stages of a pilot have cost, and what they will
prediction.py   the prediction, its table in the store, and what came of it
"""
