"""A stage on several workers: the work is split into shards of like cost, and each worker gets one.

A shard is a part of what is missing in a table that grows. Its worker fills the table; the stage itself then finds it
full. What one shard has committed stays, whatever becomes of the others.
"""

import heapq
from collections.abc import Callable, Sequence

from tasks.pipeline.dispatch import (
    DeploymentFailedError,
    DeploymentRunError,
    Order,
    check_ended_well,
    endings,
    start,
    under_way,
)
from tasks.pipeline.progress import log


def balance(costs: Sequence[float], shards: int) -> list[list[int]]:
    """Return the indices of the costs in at most `shards` groups of like sum, none empty.

    The dearest goes first, each to the group with the least so far: the largest sum is at most 4/3 of the best possible
    (Graham 1969, doi:10.1137/0117039).

    Args:
        costs: Anything additive and positive; here tokens, or rows.
        shards: At least 1.
    """
    groups: list[list[int]] = [[] for _ in range(min(shards, len(costs)))]
    sums = [(0.0, number) for number in range(len(groups))]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        least, number = heapq.heappop(sums)
        groups[number].append(index)
        heapq.heappush(sums, (least + costs[index], number))
    return groups


def compute_in_shards(lock: str, split: Callable[[], list[Order]]) -> None:
    """Start a run a shard and wait for all of them, however some end.

    Args:
        lock: Names the table that is filled. Runs that another pipeline, or this one before it was killed, has on it
            are waited for first.
        split: Returns what each worker is asked for.

    Raises:
        DeploymentFailedError: A shard failed; the others have gone on to their ends.
        DeploymentRunError: Runs crashed, or Prefect's server is gone.
    """
    while others := under_way(lock):  # others may start while we wait
        list(endings(others))
    orders = split()
    log(f"{orders[0].deployment} computes in {len(orders)} shards" if orders else "no shard is left to compute")
    failed: list[DeploymentFailedError | DeploymentRunError] = []
    for run in endings([start(order, shard=order.key) for order in orders]):
        try:
            check_ended_well(run, committed=True)
        except (DeploymentFailedError, DeploymentRunError) as error:
            failed.append(error)
    if failed:
        kind = next((type(error) for error in failed if isinstance(error, DeploymentFailedError)), DeploymentRunError)
        raise kind(f"{len(failed)} of {len(orders)} shards failed, what they had committed is kept: {failed[0]}")
