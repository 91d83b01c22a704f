"""Completions of a policy. Imports models and what is below it.

completions.py          the table of completions: what it has, what is missing
last_list.py            the last list of slices, where the next selection begins
drawing.py              requests through an engine into parts
engines.py              what an engine does, and which one is opened
vllm_engine.py          vLLM
transformers_engine.py  transformers' generate
seeded_sampling.py      a seed of its own for every row
samples.py              a completion as it was drawn
"""
