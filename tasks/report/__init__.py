"""What a run did, and whether to believe it: a page, a summary, and what watches. Imports inspection and below.

watching.py     sees each stage's output: monitors speak, the report grows
facts.py        what is known of a run
blocks.py       what a report is made of
plots.py        figures as SVG that follow light and dark
intervals.py    figures of many things at once, each with an interval
samples.py      what the policies said
evaluated.py    did it get better
benchmarked.py  how it does on benchmarks
benchmarks_page.py  the page of a benchmark run
along.py        what was gained at which KL along the training
believed.py     can I believe it
trained_on.py   what was trained on
trainings.py    how training went
reward.py       the reward model
preferences.py  what its preferences were made of
costs.py        what it cost
planned.py      what a pilot predicts, and what came of it
origin.py       where it comes from
page.py         the report as one HTML file
summary.py      the report as Markdown
closing.py      what a run says at its end
"""
