"""Rewards that are programs: a configuration names them as `tasks.rewards.programs.FILE:FUNCTION`.

answers.py      an answer that equals the reference: as text, as a number, GSM8K's
math_answer.py  an answer that is the same mathematics; needs the extra `math`
form.py         regular expressions, length, JSON, repetition
scripts.py      letters of a script
language.py     a language; needs the extra `language`
unit_tests.py   code that passes tests; runs what a model wrote

numerals.py     numbers in a text
patterns.py     regular expressions that end in time
blocks.py       fenced blocks
math_worker.py  the process that compares mathematics
sandbox.py      the sandbox of untrusted code, as its caller sees it
inside.py       the first program in the sandbox

Each is f(messages, completion, **options) -> float in [0, 1]. A completion that is wrong, or no answer at all, gets 0.
A row that nobody could score, such as a prompt without a reference, raises ValueError and gets nothing.
"""
