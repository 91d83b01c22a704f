"""Whether to believe a run: measures with healthy ranges, and verdicts. Pure functions of stats. Imports config.

monitor.py        what a monitor is
of_training.py    monitors of what a policy is trained on, and of its training, a row each
of_evaluation.py  monitors of the aligned policy, a row each
table.py          all of them
measures.py       what they measure
judging.py        verdicts, and the section `monitors`
"""
