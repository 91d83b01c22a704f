"""Rows of other people's files, as prompts with completions. Imports config, store, pipeline.

sources.py            the rows of a data source, each with its place
data_files.py         which files of a folder are meant
local_folders.py      what a folder really holds
readers.py            the rows of each kind of file
records.py            a row as prompt and completions
columns.py            which columns give them
conversations.py      conversations in the spellings of data sets
transcripts.py        texts in which speakers take turns
formats/              preferences as data sets have them
mixing.py             preferences of several sources and annotators as one table
contamination.py      prompts that share words with those of the evaluation
tally.py              what happened to the rows that were left out
read_once.py          prompts that two stages read, parsed once
loading.py            what the stages that load data share
prompt_table.py       prompts by prompt_id
added_rows.py         tables of a store that people add to
added_prompts.py      prompts that keep coming
added_preferences.py  preferences that keep coming
feedback.py           preferences of sampled completions, named by their ids
"""
