"""Preferences as data sets have them, one file a form: each tells a prompt and its graded completions. Pure.

known.py          the list of forms, and which one a source has
rankings.py       graded completions of a prompt, and the pairs that they make
comparisons.py    the pairs of a source
webgpt.py         WebGPT's comparisons
shp.py            Stanford's SHP: comments by their votes
oasst.py          OASST's trees: replies by their ranks
ultrafeedback.py  UltraFeedback: four completions with scores
nectar.py         Nectar: seven ranked answers
helpsteer.py      HelpSteer 1 to 3: attributes, and strengths of preference
saferlhf.py       PKU-SafeRLHF: the better or the safer response
kto.py            completions that are liked or not
scored_pairs.py   chosen and rejected with their scores
"""
