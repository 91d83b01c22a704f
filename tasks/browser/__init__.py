"""A local page over a store, which only reads. Imports inspection and what is below it; FastAPI, Jinja2, DuckDB.

run_files.py    what a run has in the store
scored.py       completions with rewards, part by part
repeats.py      how much a completion repeats itself
gaps.py         how many pairs any tau and eta would keep
index.py        a run as tables in memory
shelf.py        the runs that are open
opening.py      a run that a request asks for
filters.py      which prompts are asked for
prompts.py      lists of prompts, and one prompt
evaluation.py   before and after
side_by_side.py two runs
export.py       pairs as TRL reads them
diff.py         two texts word by word
safe_text.py    texts of a model as text alone
pages.py        templates, and how values are shown
guards.py       what is answered at all, and errors as pages
app.py          the addresses of runs and prompts
more.py         the addresses of evaluation, lineage, two runs, export

templates/ has the pages; static/ the style, our script, and htmx 2.0.10 (Zero-Clause BSD).
"""
