"""Benchmarks of policies, most of them by a judge. Imports evaluation and below.

answering.py         a policy's answers to conversations
figures.py           what a benchmark comes to: figures with intervals, and what was judged
mt_bench_files.py    MT-Bench's files
mt_bench.py          answers to its two turns, rated by its own prompts
win_rate.py          answers against reference answers
length_control.py    a win rate as it were at equal lengths
refusals.py          refusals by their opening phrases
harness.py           lm-eval's tasks, in an environment of its own
material.py          what the benchmarks' files hold, in the store
measuring.py         all benchmarks of a configuration
outcomes.py          what they came to, in the store
tables.py            the figures as tables
"""
