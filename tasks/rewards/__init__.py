"""Rewards of completions. Imports models and what is below it.

heads.py        reward heads in float32
model.py        a model with a scalar head, each prompt computed once
reward_model.py a reward model with its own tokenizer
vllm_rewards.py a model with a scalar head on vLLM, with prefix caching
engines.py      which of the two computes, compared before vLLM does
scoring.py      rewards looked up, the missing ones computed
stats.py        what is recorded of rewards
table.py        the table of rewards
best_of.py      what the best of n completions is worth
calibration.py  how far a reward model is right on held-out pairs
scored.py       completions and rewards joined
candidates.py   both as arrays, a row a prompt
functions.py    functions that a configuration names
called.py       functions as rewards: rows that they fail on are counted
options.py      their options, checked by type
gold.py         known rewards: facts, a sentiment lexicon
constraints.py  a known reward: the constraints of an instruction that an answer keeps
programs/       rewards that are programs: answers, form, language, code
"""
