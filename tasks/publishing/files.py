"""Which files of an aligned model are published: those that load it, or its adapter alone."""

import json
from collections.abc import Mapping

from tasks.config.errors import ConfigurationError
from tasks.models.adapters import ADAPTER
from tasks.models.weight_files import INDEX
from tasks.publishing.card import CARD, card_text
from tasks.publishing.facts import ModelFacts, aligned_model, base_model, is_ready
from tasks.store.artifacts import Content, Manifest
from tasks.store.copies import fetch
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes

ADAPTER_CONFIG = "adapter_config.json"
OF_THE_MODEL = ("config.json", "generation_config.json", INDEX)
"""What an adapter's base has of its own, beside its weights and its code."""


def file_names(aligned: Manifest, adapter: bool) -> dict[str, str]:
    """Return what is published: name in the repository -> name in the store.

    Logs and trackers' files stay. An adapter comes with the tokenizer and the chat template that it was trained with.

    Raises:
        ConfigurationError: The model has no adapter.
    """
    own = [name for name in aligned.files if "/" not in name and not name.endswith(".parquet")]
    if not adapter:
        return {name: name for name in sorted(own)}
    found = sorted(name for name in aligned.files if name.startswith(f"{ADAPTER}/"))
    if not found:
        raise ConfigurationError("this run trained all weights (dpo.lora is not set), so there is no adapter alone")
    tokenizer = [name for name in own if name not in OF_THE_MODEL and not name.endswith((".safetensors", ".py"))]
    return {name.removeprefix(f"{ADAPTER}/"): name for name in found} | {name: name for name in sorted(tokenizer)}


def file_sizes(facts: ModelFacts, repo: str, adapter: bool) -> dict[str, int]:
    """Return the bytes of every file that would be published, by its name there; reads none of them."""
    aligned = facts.made["aligned"]
    sizes = {name: aligned.files[own].size for name, own in file_names(aligned, adapter).items()}
    return sizes | {CARD: len(card_text(facts, repo, adapter).encode())}


def file_contents(store: Store, facts: ModelFacts, repo: str, adapter: bool) -> Mapping[str, Content]:
    """Return every file to publish by its name in the repository, verified.

    Raises:
        DamagedArtifactError: A file is missing or differs from the manifest.
        StoreError: The store cannot be read.
    """
    names, model = file_names(facts.made["aligned"], adapter), aligned_model(store, facts)
    card = {CARD: card_text(facts, repo, adapter).encode()}
    if not adapter:
        folder = fetch(model)
        return {name: folder / own for name, own in names.items()} | card
    files: dict[str, Content] = {name: read_bytes(model, own) for name, own in names.items()}
    return files | {ADAPTER_CONFIG: _with_base(bytes(files[ADAPTER_CONFIG]), facts)} | card


def _with_base(config: bytes, facts: ModelFacts) -> bytes:
    """Name the base model where the hub has it; the store's digest of a fine-tuned policy stays."""
    base = base_model(facts)
    if not (is_ready(facts, "policy") and base.is_on_hub):
        return config
    named = {"base_model_name_or_path": base.path, "revision": base.revision}
    return json.dumps({**json.loads(config), **named}, indent=2, sort_keys=True).encode()
