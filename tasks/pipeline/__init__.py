"""What makes a function a stage, and where it runs. Imports config, store, selection.

configuration.py  the configuration of a whole run
checks.py         what can be refused before anything is read
site.py           where a run lives: its store, and where its stages compute
stage.py          a stage: looked up, else computed and committed
options.py        what a stage brings beside its body
dry_run.py        what each stage would do
remembered.py     checks that passed before
shards.py         a stage split over several workers
dispatch.py       runs of deployments on pools of workers
gpus.py           how many GPUs a stage computes on
jobs.py           GPU work in a child that dies with its parent
progress.py       what a person sees while it runs
pace.py           how far and how fast, in words
pages.py          a stage's page in Prefect's UI
"""
