"""An aligned model leaves the house: its model card, its files, the hub. Imports inspection and what is below it.

facts.py  what the store knows of a run's aligned model
card.py   its model card, beside the model and for the hub; the text is in card.md.jinja
files.py  which files are published: the model's, or the adapter's alone
hub.py    one commit to a repository of the hub
"""
