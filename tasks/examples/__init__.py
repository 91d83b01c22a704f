"""Small worlds to try the pipeline on. Imports rewards and what is below it.

world.py  the facts of the quickstart
"""
