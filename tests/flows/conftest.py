"""Fixtures that the tests of flows share."""

import json

import pytest
import yaml
from command_lines import PAIRS


@pytest.fixture
def folder(tmp_path, test_data, monkeypatch):
    """Return a folder with a configuration that would run, its data and an empty place for the store."""
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    config = {
        "data": {
            "prompts": str(tmp_path / "pairs.jsonl"),
            "preferences": str(tmp_path / "pairs.jsonl"),
            "evaluation_fraction": 0.3,
        },
        "sft": {"ready_model": str(test_data / "stories260k")},
        "sampling": {"k": 4, "max_new_tokens": 8},
        "pairs": {"eta": 0.9},
        "store": str(tmp_path / "store"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path
