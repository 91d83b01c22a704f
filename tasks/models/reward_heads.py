"""Heads of ready reward models as they come: other names, biases, several labels; each made one head with one output.

A value head beside a causal model (`v_head.summary` of TRL and of OpenAssistant, and others) is the same linear map of
the last token's state as transformers' `score`. Of several labels one is the reward: its row of the head is kept. The
model that is stored, scored and hashed has that one output, so that nothing else needs to know.
"""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.models.weight_files import headers, read_json, register_oasst, weight_files
from tasks.store.artifacts import sha256_of
from tasks.store.hashed import file_sha256
from tasks.store.scratch import made_once

if TYPE_CHECKING:
    import torch

VALUE_HEADS = ("v_head.summary", "v_head", "value_head", "reward_head", "regression_head", "regression_layer")
"""Names that linear heads of a state have beside a causal model."""
SCORE = "score"
"""The name that transformers gives it."""
_LAST = re.compile(r"(^|\.)(score|classifier|out_proj|logits_proj|summary)\.(weight|bias)$")
"""The last linear map of a classifier, one row a label."""
_CAUSAL_HEAD = re.compile(r"^(lm_head|embed_out)\.")
INDEX = "model.safetensors.index.json"


def with_one_output(folder: Path, source: ModelSource) -> Path:
    """Return a ready reward model's folder: itself, or a copy whose head is `score` or has the chosen label alone.

    Raises:
        ConfigurationError: Several labels and none is chosen, or the chosen one is none of them.
    """
    if not (folder / "config.json").is_file() or register_oasst(folder):
        return folder
    names = set(headers(folder)) if weight_files(folder) else set()
    head = next((own for own in VALUE_HEADS if f"{own}.weight" in names), None)
    row = chosen_row(folder, source.label, headers(folder)[f"{head}.weight"].shape[0] if head else None)
    if head is None and row is None:
        return folder
    content = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    name = sha256_of(json.dumps([content, head, row], sort_keys=True).encode())
    return made_once(f"head-{name}", lambda new: _convert(folder, new, head, row))


def chosen_row(folder: Path, label: str | None, outputs: int | None) -> int | None:
    """Return the row of the head that gives the reward; None: it has one output.

    Args:
        folder: With a configuration that names the labels.
        label: The one that is wanted.
        outputs: Of a value head; None: as many as the configuration has labels.

    Raises:
        ConfigurationError: Several labels and none is chosen, or the chosen one is none of them.
    """
    named = read_json(folder / "config.json").get("id2label") or {}
    labels = {int(number): str(name) for number, name in named.items()}
    if outputs is not None and len(labels) != outputs:
        labels = {number: f"LABEL_{number}" for number in range(outputs)}
    if label is None:
        if len(labels) > 1:
            raise ConfigurationError(
                f"{folder} is no reward model with one output, but a classifier with {len(labels)} labels: set label "
                f"beside its path to the one that is the reward: {', '.join(labels.values())}"
            )
        return None
    if label not in labels.values():
        known = ", ".join(labels.values()) or "none that has a name"
        raise ConfigurationError(f"{folder} has no label {label!r}: set label to one of its own, {known}")
    return next(number for number, name in labels.items() if name == label) if len(labels) > 1 else None


def _convert(folder: Path, new: Path, head: str | None, row: int | None) -> None:
    """Write a model whose head is `score`, where it was `head`, with one of its rows, where it had several."""
    from safetensors.torch import load_file, save_file

    weights = weight_files(folder)
    new.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in (*weights, INDEX) and path.suffix != ".safetensors":
            shutil.copyfile(path, new / path.name)
    where: dict[str, str] = {}
    for name in weights:
        kept = _renamed(load_file(folder / name), head, row)
        save_file(kept, new / name, metadata={"format": "pt"})
        where |= dict.fromkeys(kept, name)
    if (folder / INDEX).is_file():
        (new / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (new / "config.json").write_text(json.dumps(_one_label(folder, head, row), indent=2))


def _renamed(tensors: dict[str, "torch.Tensor"], head: str | None, row: int | None) -> dict[str, "torch.Tensor"]:
    """Return the weights with the head by its usual name, one row of it, and no causal head."""
    found = {}
    for name, values in tensors.items():
        if head is not None and _CAUSAL_HEAD.match(name):
            continue
        is_head = name.startswith(f"{head}.") if head is not None else bool(_LAST.search(name))
        own = f"{SCORE}.{name.rpartition('.')[2]}" if is_head and head is not None else name
        found[own] = values[row : row + 1].clone() if is_head and row is not None else values
    return found


def _one_label(folder: Path, head: str | None, row: int | None) -> dict[str, Any]:
    """Return the configuration of a model with one output."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    config = read_json(folder / "config.json")
    labels = config.get("id2label") or {}
    name = labels.get(str(row or 0), "reward")
    config |= {"id2label": {"0": name}, "label2id": {name: 0}}
    config.pop("num_labels", None)
    config.pop("problem_type", None)
    if head is not None:
        kind = AutoConfig.for_model(config["model_type"]).model_type
        if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            raise ConfigurationError(
                f"{folder} has a value head {head!r} on a {kind} model, for which transformers has no scalar head: "
                "name another reward model"
            )
        config["architectures"] = [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[kind]]
    return config


def with_bias(kind: Any) -> Any:
    """Return a class of models whose head `score` has a bias, which transformers' own leaves out.

    Args:
        kind: A class for sequence classification.
    """
    import torch

    class Biased(kind):
        score: torch.nn.Linear

        def __init__(self, config: Any, *rest: Any, **options: Any) -> None:
            super().__init__(config, *rest, **options)
            self.score = torch.nn.Linear(self.score.in_features, self.score.out_features, bias=True)

    Biased.__name__ = Biased.__qualname__ = kind.__name__
    return Biased


def has_bias(folder: Path) -> bool:
    """Tell whether a model's head `score` has a bias: transformers' own classes, and vLLM's, would leave it out."""
    return f"{SCORE}.bias" in headers(folder)
