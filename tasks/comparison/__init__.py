"""Several ways to align one policy, compared at equal footing. Imports report and what is below it.

arms.py         what is compared: arms of a configuration, seeds, and what is refused
algorithms.py   what aligns an arm's policy, and which overrides it reads
differences.py  how two arms differ over prompts and seeds, and whether they can be told apart
frontier.py     curves of reward against KL, and the reward at one KL
halves.py       an arm against itself, its seeds split in two
best_of_n.py    the best of several completions, without any training
waves.py        in which order runs begin that go side by side
results.py      what each run of an arm has left
outcome.py      what came out: tables and sentences
benchmarked.py  what benchmarks found of each arm's last model
sweeps.py       arms that differ in one setting; tau and eta are one
weakened.py     what an arm loses where its reward model, say, is weaker
trainings.py    how an arm's trainings went, over its seeds
figures.py      the figures of the page
page.py         the page of a comparison
"""
