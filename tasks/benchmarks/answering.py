"""A policy's answers to conversations, drawn once and kept with its other completions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa

from tasks.config.benchmarks import AnswerDecoding
from tasks.config.errors import ConfigurationError
from tasks.data.conversations import Messages
from tasks.data.records import prompt_id
from tasks.lm.context import context_length
from tasks.lm.tokens import encode_prompt
from tasks.models.loading import model_folder, model_tokenizer
from tasks.sampling.completions import sample_slices
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft, provenance_of
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest


class Answerer:
    """One policy that answers."""

    def __init__(self, store: Store, policy: Artifact, decoding: AnswerDecoding, system: str | None) -> None:
        """Name the policy; nothing is loaded yet.

        Args:
            store: Keeps the answers.
            policy: A model.
            decoding: How it answers.
            system: System message of conversations that have none.
        """
        self.store, self.policy, self.decoding, self.system = store, policy, decoding, system
        self.parts: dict[str, str] = {}
        """Folder -> digest of each part of the policy's completions that holds answers."""

    def answer(self, conversations: Sequence[Messages], temperatures: Sequence[float]) -> list[str]:
        """Return the answer to each conversation at its temperature; what the store has is not drawn again.

        Raises:
            ConfigurationError: A conversation leaves no room for an answer.
        """
        asked = [instructed(messages, self.system) for messages in conversations]
        most = self.decoding.max_new_tokens
        check_room(self.policy, ((messages, most) for messages in asked), None, most)
        places: dict[float, list[int]] = defaultdict(list)
        for place, temperature in enumerate(temperatures):
            places[temperature].append(place)
        texts = [""] * len(asked)
        for temperature, own in places.items():
            found = self._drawn([asked[place] for place in own], temperature)
            for place in own:
                texts[place] = found[prompt_id(asked[place])]
        return texts

    def answer_alike(self, conversations: Sequence[Messages]) -> list[str]:
        """Return the answer to each conversation at the configured temperature; see `answer`."""
        return self.answer(conversations, [self.decoding.temperature] * len(conversations))

    def _drawn(self, conversations: Sequence[Messages], temperature: float) -> dict[str, str]:
        """Return the answers by prompt."""
        decoding = self.decoding.model_copy(update={"temperature": temperature})
        slices, _ = sample_slices(self.store, self.policy, stored_prompts(self.store, conversations), decoding)
        self.parts |= {self.store.folder_of(slice_.part): slice_.part.digest for slice_ in slices}
        tables = [slice_.read(["prompt_id", "completion"]) for slice_ in slices]
        return {row["prompt_id"]: row["completion"] for table in tables for row in table.to_pylist()}


def check_room(policy: Artifact, asked: Iterable[tuple[Messages, int]], system: str | None, most: int) -> None:
    """Refuse conversations that leave too little room in a policy's context.

    Args:
        policy: A model; its weights are not read.
        asked: Conversations, each with the tokens that it must leave.
        system: System message of conversations that have none.
        most: `sampling.max_new_tokens`, for the message.

    Raises:
        ConfigurationError: Names the first one and the setting to lower.
    """
    context, tokenizer = context_length(model_folder(policy, weights=False)), model_tokenizer(policy)
    for messages, wanted in asked:
        tokens = len(encode_prompt(tokenizer, instructed(messages, system)))
        if tokens + wanted > context:
            raise ConfigurationError(
                f"{messages[-1]['content'][:60]!r} comes to {tokens} tokens, and the answers to {wanted} at most: more "
                f"than the {context} of the model's context; lower the benchmarks' sampling.max_new_tokens = {most}"
            )


def instructed(messages: Messages, system: str | None) -> Messages:
    """Return a conversation with a system message, its own or the given one."""
    has_own = system is None or messages[0]["role"] == "system"
    return messages if has_own else [{"role": "system", "content": str(system)}, *messages]


def stored_prompts(store: Store, conversations: Iterable[Messages]) -> Artifact:
    """Return conversations as prompts in the store, each once."""
    known = {prompt_id(messages): messages for messages in conversations}
    rows = [
        {"prompt_id": id_, "messages": messages, "source": "benchmark", "reference_completion": None, "metadata": None}
        for id_, messages in known.items()
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    digest = format_digest(rows_digest(table))
    draft = Draft(store, provenance_of("benchmark_prompts", 1, {"rows": digest}))
    return draft.commit("prompts", {"rows.parquet": table_bytes(table, "prompts")}, digest, rows=table.num_rows)
