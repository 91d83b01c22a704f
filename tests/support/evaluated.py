"""Rows of an evaluation, by hand."""

import pyarrow as pa

from tasks.store.schemas import SCHEMAS


def samples(**policies: dict[str, list[list[float | None]]]) -> pa.Table:
    """Return the rows of an evaluation: policy -> reward -> prompt -> rewards of its completions."""
    rows = [
        {
            "policy": policy,
            "reward_name": reward,
            "prompt_id": f"p{number}",
            "completion_id": place,
            "completion": "",
            "reward": value,
        }
        for policy, rewards in policies.items()
        for reward, prompts in rewards.items()
        for number, values in enumerate(prompts)
        for place, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows[::-1], schema=SCHEMAS["evaluation"])
