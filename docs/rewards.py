"""Draw the rewards of both policies of a store's last evaluation, and print some of their completions.

python docs/rewards.py .rsdpo

The plot goes to docs/img/rewards.svg. The completions are the first sample of each policy for the first held-out
prompts in the order of their ids, so that nobody picks them.
"""

import argparse
import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.inspection.catalog import Catalog, read_catalog
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes
from tasks.store.parquet import read_table

PLOT = Path(__file__).parent / "img/rewards.svg"
COLOURS = ("#bf8700", "#2f81c1")
GREY = "#737c86"
"""Readable on white and on black."""


def last(store: Store, catalog: Catalog, stage: str) -> Artifact:
    """Return the newest output of a stage."""
    return [entry.artifact(store) for entry in catalog.select("stage") if entry.folder.startswith(f"{stage}/")][-1]


def draw(samples: pa.Table, policies: list[str], reward: str) -> None:
    """Draw a histogram of the rewards of each policy."""
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "rewards", "font.size": 11}
    import matplotlib.pyplot as plt

    rewards = {policy: rewards_of(samples, policy, reward) for policy in policies}
    edges = np.histogram_bin_edges(np.concatenate(list(rewards.values())), bins=24)
    figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for (policy, values), colour in zip(rewards.items(), COLOURS, strict=True):
        label = f"{policy}, mean {values.mean():.2f}"
        axes.hist(values, edges.tolist(), color=colour, alpha=0.65, label=label)
        axes.axvline(values.mean(), color=colour, linestyle="--")
    axes.set_xlabel(f"{reward.replace('_', ' ')} reward", color=GREY)
    axes.set_ylabel("completions", color=GREY)
    axes.tick_params(colors=GREY)
    axes.spines[:].set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(labelcolor=GREY, frameon=False, loc="upper left")
    figure.savefig(PLOT, transparent=True, metadata={"Date": None})


def rewards_of(samples: pa.Table, policy: str, reward: str) -> np.ndarray:
    """Return the rewards that a policy's completions have."""
    mask = pc.and_(pc.equal(samples["policy"], policy), pc.equal(samples["reward_name"], reward))
    return np.asarray(samples.filter(mask)["reward"].drop_null())


def print_completions(samples: pa.Table, prompts: pa.Table, policies: list[str], reward: str, number: int) -> None:
    """Print a Markdown table of the first sample of each policy for the first prompts by their ids."""
    texts = {row["prompt_id"]: row["messages"][-1]["content"] for row in prompts.to_pylist()}
    rows = [row for row in samples.to_pylist() if row["completion_id"] == 0 and row["reward_name"] == reward]
    print(f"| prompt | policy | completion | {reward} reward |\n|---|---|---|---|")
    for prompt_id in sorted({row["prompt_id"] for row in rows})[:number]:
        for policy in policies:
            (row,) = (each for each in rows if (each["prompt_id"], each["policy"]) == (prompt_id, policy))
            print(f"| {texts[prompt_id]} | {policy} | {row['completion']} | {row['reward']:.2f} |")


def main() -> None:
    """Draw and print what a store's last evaluation holds."""
    parser = argparse.ArgumentParser(description="Plot the rewards of a store's last evaluation; print completions.")
    parser.add_argument("store", help="a folder, file:///... or s3://bucket/prefix")
    parser.add_argument("--reward", default="gold", help="name of the reward (default: gold)")
    parser.add_argument("--prompts", type=int, default=2, help="prompts whose completions are printed (default: 2)")
    options = parser.parse_args()
    store = Store(options.store)
    catalog = read_catalog(store)
    evaluation, prompts = last(store, catalog, "evaluate_policy"), last(store, catalog, "load_held_out")
    samples = pq.read_table(io.BytesIO(read_bytes(evaluation, "samples.parquet")))
    if options.reward not in (named := samples["reward_name"].unique().to_pylist()):
        sys.exit(f"error: --reward {options.reward} is not in the evaluation, which has {', '.join(sorted(named))}")
    reference = evaluation.stats["reference"]
    policies = [reference, *sorted(evaluation.stats["policies"].keys() - {reference})]
    draw(samples, policies, options.reward)
    print_completions(samples, read_table(prompts), policies, options.reward, options.prompts)


if __name__ == "__main__":
    main()
