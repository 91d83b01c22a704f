"""How often an arm is told apart from itself: a comparison's own runs, the seeds of each arm split into two at random.

Each half stands for an arm; they are compared at equal KL as `flows.compare` does, and one in twenty splits may be told
apart. Splits of one arm share its seeds, so the binomial interval over splits is too narrow; beside it stands between
which shares 95% of simulated arms of as many seeds are. Ten seeds or more; of five, a split has two a side.

    python benchmarks/null_comparison.py URI_OF_COMPARISON [--splits 500] [--json]
"""

import argparse
import json

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest

from tasks.comparison.frontier import Curve, common_kl, curve
from tasks.comparison.halves import LEAST_SEEDS, told_apart, usual_range
from tasks.store.folders import open_store
from tasks.store.parquet import read_table

SIMULATED = 200


def models(uri: str) -> pa.Table:
    """Return the models of a comparison, of which its page or its folder is given."""
    store, _, folder = uri.rpartition("/compare/")
    found = open_store(store).find(f"compare/{folder.split('/')[0]}") if store else None
    if found is None:
        raise SystemExit(f"{uri} is no comparison: give what `flows.compare` prints, .../compare/KEY")
    return read_table(found)


def curves(rows: pa.Table) -> dict[str, list[Curve]]:
    """Return the curve of each seed by arm."""
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for row in rows.to_pylist():
        runs.setdefault((row["arm"], row["seed"]), []).append(row)
    arms: dict[str, list[Curve]] = {}
    for (arm, _), own in runs.items():
        points = [(row["kl"], row["reward"]) for row in own]
        arms.setdefault(arm, []).append(curve(points, own[0]["reference_reward"]))
    return arms


def main() -> None:
    """Print how often each arm is told apart from itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison")
    parser.add_argument("--splits", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    draws, found, usual = np.random.default_rng(0), [], dict[int, tuple[float, float]]()
    arms = curves(models(options.comparison))
    if few := [arm for arm, own in arms.items() if len(own) < LEAST_SEEDS]:
        raise SystemExit(f"{', '.join(few)}: fewer than {LEAST_SEEDS} seeds cannot be split; ten or more are better")
    for arm, own in arms.items():
        kl = common_kl({arm: own})
        count = told_apart(np.array([each.at(kl) for each in own]), options.splits, draws)
        if len(own) not in usual:
            usual[len(own)] = usual_range(len(own), options.splits, SIMULATED, draws)
        interval = binomtest(count, options.splits).proportion_ci()
        found.append({"arm": arm, "seeds": len(own), "kl": kl, "told_apart": count / options.splits})
        found[-1] |= {"interval": [interval.low, interval.high], "usual": usual[len(own)]}
        print(
            f"{arm}, {len(own)} seeds, at KL {kl:.2f}: told apart from itself in {count / options.splits:.1%} of "
            f"{options.splits} splits [{interval.low:.1%}, {interval.high:.1%}]; usual for as many normal seeds: "
            f"{usual[len(own)][0]:.1%} to {usual[len(own)][1]:.1%}"
        )
    mean = float(np.mean([each["told_apart"] for each in found]))
    print(f"mean over {len(found)} arms: {mean:.1%}; 5% is right")
    if options.json:
        print(json.dumps({"arms": found, "mean": mean}))


if __name__ == "__main__":
    main()
