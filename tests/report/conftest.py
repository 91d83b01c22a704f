"""A run's facts without a run: its evaluation, made of rows."""

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from tasks.config.evaluation import EvaluationConfig
from tasks.data.loading import commit_rows
from tasks.evaluation.comparison import compare
from tasks.evaluation.drawn import Drawn, samples_table
from tasks.pipeline.configuration import Config
from tasks.report.facts import Facts
from tasks.store.artifacts import Provenance, sha256_of
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS

CONFIG = Config.model_validate({"data": {"prompts": "x"}, "sft": {"ready_model": "y"}})
DIVERGENCE = {f"kl_{part}{end}": 1.0 for part in ("sequence", "token") for end in ("", "_low", "_high")}


def draft(store: Store, stage: str) -> Draft:
    return Draft(store, Provenance(stage=stage, version=1, key="0" * 64))


@pytest.fixture
def facts_of(tmp_path) -> Callable[..., Facts]:
    """Return a function from (prompt, sft's text, aligned's text, rewards of both) to facts with that evaluation."""

    def make(rows: list[tuple[str, str, str, float, float]], sources: list[str] | None = None) -> Facts:
        store = Store(str(tmp_path))
        ids = [f"p{number:03}" for number in range(len(rows))]
        named = zip(ids, rows, sources or ["s"] * len(rows), strict=True)
        prompts = [
            {"prompt_id": id_, "messages": [{"role": "user", "content": row[0]}], "source": source}
            for id_, row, source in named
        ]
        loaded = commit_rows(draft(store, "load_evaluation_prompts"), "prompts", prompts, {})

        def drawn(side: int) -> Drawn:
            columns = {
                "prompt_id": ids,
                "completion_id": [0] * len(rows),
                "completion": [row[1 + side] for row in rows],
                "token_ids": [[1]] * len(rows),
                "num_tokens": [5] * len(rows),
                "finish_reason": ["stop"] * len(rows),
            }
            rewards = np.array([row[3 + side] for row in rows])
            return Drawn(pa.table(columns, SCHEMAS["completions"]), {"reward_model": rewards}, {})

        both = {"sft": drawn(0), "aligned": drawn(1)}
        figures = compare(both, "sft", EvaluationConfig(k=1, bootstrap_samples=100))
        figures["aligned"]["divergence"] = DIVERGENCE | {"completions": len(rows), "truncated": 0}
        for policy in figures.values():
            policy["reference_nll"] = 1.0
        stats = {"prompts": len(rows), "reference": "sft", "policies": figures}
        files = {"samples.parquet": table_bytes(samples_table(both), "evaluation")}
        text = json.dumps(stats).encode()
        evaluation = draft(store, "evaluate_policy").commit("evaluation", files, sha256_of(text), stats=stats)
        return Facts(store, CONFIG, artifacts={"load_evaluation_prompts": loaded, "evaluate_policy": evaluation})

    return make
