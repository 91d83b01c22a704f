"""Rounds of RS-DPO, each from the policy that the one before has given. Imports report and what is below it.

settings.py  how many rounds, what they share, and when they end
outcome.py   what each round has given, and whether another one is worth it
page.py      the rounds as one curve
"""
