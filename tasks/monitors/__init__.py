"""Whether to believe a run: measures with healthy ranges, and verdicts. Pure functions of stats. Imports config.

table.py     the monitors, a row each
measures.py  what they measure
judging.py   verdicts, and the section `monitors`
"""
