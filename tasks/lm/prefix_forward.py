"""Forward passes that compute each prompt once for its completions, and each completion once.

Where a model family allows it, the keys and values of a batch's prompts are computed once, under gradient where there
is one, and every completion continues from its prompt's keys and values. Elsewhere a completion is forwarded behind a
copy of its prompt. Imports torch, so import it inside functions only.
"""

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from tasks.lm.layout import Batch, Part


def wanted_states(backbone: Callable[..., Any], batch: Batch) -> torch.Tensor:
    """Return the wanted hidden states, (tokens, hidden), row after row in the order of the batch.

    Args:
        backbone: The model without its head.
        batch: On the backbone's device.
    """
    return torch.cat([state for part in batch.parts for state in _bucket_states(backbone, part)])


def take_rows(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return rows of a tensor, whose gradient is the same in every run.

    A row that is taken several times gets the sum of their gradients, and the last bits depend on the order. Indexing
    sorts it on GPUs, but leaves it to chance between the threads of a CPU; `index_select` is the other way round.

    Args:
        values: Any shape.
        rows: (rows,) indices into the first dimension.
    """
    return values[rows] if values.is_cuda else values.index_select(0, rows)


def name_body(model: PreTrainedModel) -> None:
    """Have `base_model` give the body of a model whose class says that it is under another name (Llama 4's text)."""
    if model.base_model is model and isinstance(getattr(model, "model", None), PreTrainedModel):
        model.base_model_prefix = "model"


def accept_batches(backbone: PreTrainedModel) -> None:
    """Let a backbone take a `batch` and return the states that it wants, (1, tokens, hidden)."""
    plain = backbone.forward

    def forward(self: PreTrainedModel, *args: Any, batch: Any = None, **kwargs: Any) -> Any:
        if batch is None:
            return plain(*args, **kwargs)
        return BaseModelOutput(last_hidden_state=wanted_states(plain, batch)[None])

    backbone.forward = MethodType(forward, backbone)


def _bucket_states(backbone: Callable[..., Any], part: Part) -> Iterator[torch.Tensor]:
    """Yield the wanted states of each bucket."""
    if part.prefix is None:
        for bucket in part.buckets:
            states = backbone(input_ids=bucket.ids, attention_mask=bucket.mask, use_cache=False).last_hidden_state
            yield states[bucket.wanted]
        return
    ids, mask = part.prefix
    lengths = mask.sum(1, keepdim=True)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    cache = backbone(
        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=DynamicCache(), use_cache=True
    ).past_key_values
    for bucket in part.buckets:
        own, along = bucket.prompt, torch.arange(bucket.ids.shape[1], device=ids.device)
        states = backbone(
            input_ids=bucket.ids,
            attention_mask=torch.cat([mask[own], bucket.mask], 1),
            position_ids=lengths[own] + torch.minimum(along, bucket.mask.sum(1, keepdim=True) - 1),
            past_key_values=_select_rows(cache, own),
            use_cache=True,
        ).last_hidden_state
        yield states[bucket.wanted]


def _select_rows(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """Return a new cache with the keys and values of some rows of another cache."""
    chosen = DynamicCache()
    for layer in cache.layers:
        own = DynamicLayer()
        own.lazy_initialization(layer.keys, layer.values)
        own.keys, own.values = take_rows(layer.keys, rows), take_rows(layer.values, rows)
        chosen.layers.append(own)
    return chosen
