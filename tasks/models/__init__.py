"""Model folders: checked, stored, loaded. Imports lm and what is below it.

locate.py            where a model comes from
gguf.py              models in llama.cpp's format, unpacked
form.py              the form in which it is stored
checks.py            what it is checked for
tokenizer_checks.py  what its tokenizer is checked for
templates.py         dates in chat templates
weight_files.py      the files that hold weights
weights.py           whether they are all of the model, and how they are loaded
loading.py           stored models as folders, tokenizers, policies
adapters.py          low-rank adapters, beside a model or over one
oasst.py             OpenAssistant's reward models
reward_heads.py      heads of ready reward models: other names, biases, several labels
updates.py           what rounding leaves of a training
licence.py           what is written about it: its licence, its commit on the hub
demands.py           what models demand of a row
"""
