"""Trainings: examples, trainers, checkpoints, references. Imports rewards and what is below it.

trained_model.py  the stage's side of a job: resumed from its last checkpoint, and its model committed
trackers.py       what a training reports to, and what of it goes into the store
trainer.py        the trainer's side of a job
saving.py         the model that a training leaves
checks.py         what TRL, transformers and peft refuse
dpo_examples.py   pairs joined with tokens: a row a prompt
dpo_setup.py      what a DPO training is set up with
shared_prompts.py whether each prompt is computed once for its completions
packs.py          which prompts go through the model together
weights.py        what each pair of a step weighs, and its part of its completions
pack_collator.py  a pack as tensors
halving.py        what is done where memory runs out
dpo_trainer.py    TRL's DPO trainer, each completion forwarded once
rloo_setup.py     what an RLOO training is set up with
rloo_trainer.py   TRL's RLOO trainer, with our prompts and rewards
drawn.py          what a policy has drawn while it trains
snapshots.py      models that are kept along a training
held_out.py       pairs that are measured and not trained on
passes.py         which examples a step of SFT or of a reward model takes, and which go through the model together
step_trainer.py   a trainer that takes each step in such passes, in smaller ones where memory runs out
sft_trainer.py    TRL's SFT trainer on demonstrations of like length
preference_groups.py  preferences of a prompt, each completion once, and rankings
reward_examples.py    the preferences of a training
reward_trainer.py TRL's reward trainer, each completion forwarded once
reward_losses.py  losses of a reward model, one function each
losses.py         losses that TRL's trainer of pairs does not have, one function each
pair_values.py    what losses read of pairs, and what is logged of them
reference.py      log-probabilities under the reference
unrelated.py      what KTO's reference point is measured on
"""
