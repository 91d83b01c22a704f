"""Prompts of a run by prompt_id, and the hash that splits them."""

import hashlib

from tasks.data.records import Messages
from tasks.store.artifacts import Artifact
from tasks.store.parquet import read_table


class PromptTable:
    """Prompts by prompt_id."""

    def __init__(self, prompts: Artifact) -> None:
        """Read a prompts artifact."""
        table = read_table(prompts, ["prompt_id", "messages"])
        self.ids: list[str] = table["prompt_id"].to_pylist()
        self._messages = table["messages"]  # in chunks, since an Arrow array holds no more than 2 GB of text
        self._rows = {prompt_id: row for row, prompt_id in enumerate(self.ids)}

    def __contains__(self, prompt_id: str) -> bool:
        """Tell whether the prompt is in the table."""
        return prompt_id in self._rows

    def __getitem__(self, prompt_id: str) -> Messages:
        """Return the conversation of a prompt."""
        return list(self._messages[self._rows[prompt_id]].as_py())


def hash_fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
