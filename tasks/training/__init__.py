"""Trainings: jobs, checkpoints, trainers, references. Imports rewards and what is below it.

outputs.py      a job that goes on from its last checkpoint, and its model
trainer.py      the trainer's side of a job
checks.py       what TRL, transformers and peft refuse
adapters.py     low-rank adapters
pair_groups.py  pairs joined with tokens
packs.py        what goes through the model together
dpo_trainer.py  TRL's DPO trainer, each completion forwarded once
losses.py       losses that TRL does not have
reference.py    log-probabilities under the reference
"""
