"""Small worlds to try the pipeline on. Imports evaluation and what is below it.

world.py         the facts of the quickstart
instructions.py  instructions with constraints, for a real chat model
smollm2.py       that model, out of a package
kept.py          which constraints two policies keep
"""
