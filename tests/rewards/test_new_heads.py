"""Reward models whose modules beside the body are new: what is stored is what was trained, adapters or not."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig
from tasks.import_model import model_files
from tasks.models.weights import load_weights
from tasks.reward_model import fit
from tasks.training import trainer
from tasks.training.trained_model import EXAMPLES, OUTPUT, Job

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = {"vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
BASES = {
    "a pooler": lambda: BertForMaskedLM(BertConfig(**SMALL, **TOKENS)),
    "two layers": lambda: DistilBertForMaskedLM(
        DistilBertConfig(dim=32, hidden_dim=32, n_layers=1, n_heads=2, **TOKENS)
    ),
    "two labels before": lambda: LlamaForSequenceClassification(LlamaConfig(**SMALL, **TOKENS, num_labels=2)),
}


@pytest.mark.parametrize("adapted", [True, False], ids=["adapters", "all weights"])
@pytest.mark.parametrize("name", BASES)
def test_the_stored_reward_model_is_the_trained_one(test_data, tmp_path, monkeypatch, name, adapted):
    source, base, job_folder = tmp_path / "source", tmp_path / "base", tmp_path / "job"
    for folder in (source, base, job_folder):
        folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (source / file).write_bytes((test_data / "stories260k" / file).read_bytes())
    BASES[name]().save_pretrained(source)
    for file, content in model_files(source, ModelSource(path=str(source)), "reward_base").items():
        (base / file).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    rows = np.random.default_rng(0).integers(3, 500, (8, 6)).tolist()
    columns = {"prompt_id": list("abcd"), "chosen_ids": rows[:4], "rejected_ids": rows[4:]}
    pq.write_table(pa.table(columns), job_folder / EXAMPLES)
    config = RewardModelConfig(max_steps=1, batch_size=4, learning_rate=0.01, lora={"r": 2} if adapted else None)
    ids, trained = torch.tensor(rows), []

    def rewards(model):
        with torch.no_grad():
            return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0]

    save = trainer.save_model
    monkeypatch.setattr(
        trainer, "save_model", lambda model, *rest: [trained.append(rewards(model)), save(model, *rest)]
    )
    settings = config.model_dump(mode="json")
    fit(Job(fit="", folder=job_folder, model=base, store=str(tmp_path / "store"), checkpoints="c/x", config=settings))
    stored = rewards(load_weights(job_folder / OUTPUT, "reward_model", "float32", False))
    torch.testing.assert_close(stored, trained[0], atol=1e-6, rtol=1e-4)
    assert stored.std() > 1e-5
