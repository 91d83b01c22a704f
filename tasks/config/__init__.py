"""Every setting but those of pair selection, each documented in place. Imports nothing of ours.

errors.py       the error of whoever runs this
environment.py  what libraries read from the environment, set before they are imported
sections.py     what a section is made of; data, models and functions that sections name
data.py         data
settings.py     sft, reward_model, sampling, scoring
evaluation.py   evaluation
benchmarks.py   what policies are measured by beside it
rewards.py      rewards: what gives them, by name
training.py     what the trained stages share, and dpo
rloo.py         rloo, the on-policy training beside dpo
losses.py       the losses of dpo, and what each reads
judges.py       a judge and what it is asked
reward_losses.py  the losses of reward_model, and what each reads
extra.py        what a section may pass through to a library
compute.py      where stages compute, and the list of stages that need a GPU
"""
