"""Judges: language models behind an endpoint that rate answers or compare them. Imports data and what is below it.

verdicts.py   verdicts read out of an answer, strictly
questions.py  what a judge is asked
answers.py    the answers in the store, so that nothing is asked twice
budget.py     tokens and money, reserved before they are spent
bodies.py     the body of an endpoint's answer
endpoint.py   one request, sent again where that may help
asking.py     many questions at once
stats.py      what is recorded
judge.py      rates answers, compares pairs
revising.py   critique and revision by principles
"""
