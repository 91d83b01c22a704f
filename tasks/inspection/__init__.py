"""Looking at a store, and deleting what nobody needs. Imports rewards and what is below it.

catalog.py    what a store holds
lineage.py    where an artifact comes from
browse.py     one prompt as a person reads it
sampled.py    completions that feedback is about, with their prompts
printable.py  text of a model, safe to show
prune.py      deletes what no kept run reaches
status.py     how far a run is, as the store tells
reported.py   how far a run is, as Prefect's server tells
"""
