"""What a language model computes, each prompt once for its completions. Imports config, store, pipeline, data.

turns.py           how a conversation is rendered and how a turn ends
tokens.py          conversations as ids
context.py         how long a sequence may be
memory.py          a device's memory: given back, and run out of
batches.py         batches under a budget of tokens
layout.py          which sequences are forwarded together, padded
prefix_forward.py  forward passes that compute each prompt once
lengths.py         which sequences may be forwarded together
sharing.py         whether a model's prompts can be shared
logps.py           log-probabilities, and divergences of two policies
"""
