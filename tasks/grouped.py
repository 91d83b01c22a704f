"""Forward passes that compute each prompt once for its completions, and each completion once.

A batch holds prompts and, of each, some completions. Where a model family allows it, the keys and values of the prompts
are computed once, under gradient where there is one, and every completion continues from those of its prompt. Elsewhere
a completion is forwarded behind a copy of its prompt. Rows are forwarded in buckets of like length.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

Ids = Sequence[int]
LEAST_FILL = 0.75
"""Share of a bucket's longest row that its shortest has at least."""


class Bucket(NamedTuple):
    """Rows of like length that are forwarded together, padded on the right."""

    ids: torch.Tensor
    """(rows, width): the last token of the prompt and the completion; without a shared prefix the whole prompt."""
    mask: torch.Tensor
    """(rows, width) 1 on tokens."""
    wanted: torch.Tensor
    """(rows, width) bool: positions whose hidden states are wanted."""
    prompt: torch.Tensor
    """(rows,) int: each row's prompt within the batch."""


class Batch(NamedTuple):
    """Prompts with completions, laid out for the forward passes."""

    prefix: tuple[torch.Tensor, torch.Tensor] | None
    """Ids and mask, (prompts, width), of the prompts up to their last token, padded on the left; None: not shared."""
    buckets: list[Bucket]
    """Rows in the order of `order`."""
    order: list[int]
    """The completions' numbers in the order of their rows: longest row first."""
    tokens: int
    """Tokens forwarded, padding apart."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        prefix = self.prefix and (self.prefix[0].to(device), self.prefix[1].to(device))
        return self._replace(prefix=prefix, buckets=[Bucket(*(t.to(device) for t in b)) for b in self.buckets])


def lay_out(
    prompts: Sequence[Ids],
    completions: Sequence[Ids],
    prompt_of: Sequence[int],
    shared: bool,
    least_fill: float = LEAST_FILL,
) -> Batch:
    """Return a batch that asks for the state before each completion token: what its log-probability is read from.

    Args:
        prompts: Token ids, at least one each.
        completions: Token ids, at least one each.
        prompt_of: Each completion's prompt.
        shared: Compute each prompt once.
        least_fill: Share of a bucket's longest row that its shortest has at least; 0: all rows in one bucket.
    """
    heads = [prompt[-1:] if shared else prompt for prompt in prompts]
    rows = [[*heads[of], *completion] for of, completion in zip(prompt_of, completions, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    prefixes = [prompt[:-1] for prompt in prompts] if shared else []
    buckets = [_bucket(chosen, rows, completions, prompt_of) for chosen in _alike(order, rows, least_fill)]
    tokens = sum(map(len, rows)) + sum(map(len, prefixes))
    return Batch(_padded_left(prefixes) if any(prefixes) else None, buckets, order, tokens)


def cut_batches(
    prompts: Sequence[Ids], completions: Sequence[Ids], prompt_of: Sequence[int], tokens: int, shared: bool
) -> Iterator[list[int]]:
    """Yield the numbers of the completions that go into each batch: a prompt's together, prompts of like length.

    Args:
        prompts: Token ids.
        completions: Token ids.
        prompt_of: Each completion's prompt.
        tokens: Most tokens a batch, padding apart; a single completion may have more.
        shared: Compute each prompt once.
    """
    order = sorted(range(len(completions)), key=lambda i: (-len(prompts[prompt_of[i]]), prompt_of[i]))
    batch: list[int] = []
    held = 0
    for number in order:
        prompt, again = len(prompts[prompt_of[number]]), bool(batch) and prompt_of[batch[-1]] == prompt_of[number]
        cost = len(completions[number]) + (1 if shared and again else prompt)
        if batch and held + cost > tokens:
            yield batch
            batch, held, cost = [], 0, len(completions[number]) + prompt
        batch.append(number)
        held += cost
    if batch:
        yield batch


def lay_out_some(
    prompts: Sequence[Ids], completions: Sequence[Ids], prompt_of: Sequence[int], some: Sequence[int], shared: bool
) -> Batch:
    """Return a batch of some of the completions; `order` holds their numbers among all."""
    used = sorted({prompt_of[i] for i in some})
    own = [used.index(prompt_of[i]) for i in some]
    batch = lay_out([prompts[i] for i in used], [completions[i] for i in some], own, shared)
    return batch._replace(order=[some[i] for i in batch.order])


def last_states_only(batch: Batch) -> Batch:
    """Return the batch asking for the state at each row's last token: what a reward is read from."""
    buckets = []
    for bucket in batch.buckets:
        wanted = torch.zeros_like(bucket.wanted)
        wanted[torch.arange(len(wanted)), bucket.mask.sum(1) - 1] = True
        buckets.append(bucket._replace(wanted=wanted))
    return batch._replace(buckets=buckets)


def targets(batch: Batch) -> torch.Tensor:
    """Return the completion tokens, (tokens,), in the order of the wanted states."""
    return torch.cat([bucket.ids[:, 1:][bucket.wanted[:, :-1]] for bucket in batch.buckets])


def wanted_states(backbone: Callable[..., Any], batch: Batch) -> torch.Tensor:
    """Return the wanted hidden states, (tokens, hidden), row after row in the order of the batch.

    Args:
        backbone: The model without its head.
        batch: On the backbone's device.
    """
    if batch.prefix is None:
        return torch.cat([_forward(backbone, bucket)[bucket.wanted] for bucket in batch.buckets])
    ids, mask = batch.prefix
    lengths = mask.sum(1, keepdim=True)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    cache = backbone(
        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=DynamicCache(), use_cache=True
    ).past_key_values
    states = []
    for bucket in batch.buckets:
        own = bucket.prompt
        known = {
            "attention_mask": torch.cat([mask[own], bucket.mask], 1),
            "position_ids": lengths[own] + torch.arange(bucket.ids.shape[1], device=ids.device),
            "past_key_values": _rows_of(cache, own),
            "use_cache": True,
        }
        states.append(_forward(backbone, bucket, **known)[bucket.wanted])
    return torch.cat(states)


def why_not_shared(model: PreTrainedModel) -> str | None:
    """Return why a model's prompts cannot be shared, or None where they can."""
    backbone = model.base_model
    if model.is_gradient_checkpointing:
        return "gradient checkpointing keeps no keys and values"
    if getattr(model, "_is_stateful", False):
        return f"{type(model).__name__} has a recurrent state"
    parameters = inspect.signature(backbone.forward).parameters
    if missing := {"position_ids", "past_key_values", "use_cache"} - parameters.keys():
        return f"{type(backbone).__name__} takes no {min(missing)}"
    with torch.no_grad():
        return _disagreement(backbone, model.config.get_text_config().vocab_size)


def takes_batches(backbone: PreTrainedModel) -> None:
    """Let a backbone take a `batch` and return the states that it wants, (1, tokens, hidden)."""
    plain = backbone.forward

    def forward(self: PreTrainedModel, *args: Any, batch: Any = None, **kwargs: Any) -> Any:
        if batch is None:
            return plain(*args, **kwargs)
        return BaseModelOutput(last_hidden_state=wanted_states(plain, batch)[None])

    backbone.forward = MethodType(forward, backbone)


def _disagreement(backbone: PreTrainedModel, vocabulary: int) -> str | None:
    """Compare the hidden states of both ways on random tokens."""
    random = torch.Generator().manual_seed(0)
    lengths = ((5, 9), (3, 4, 11, 7))
    prompts, completions = (
        [torch.randint(vocabulary, (length,), generator=random).tolist() for length in group] for group in lengths
    )
    both = [lay_out(prompts, completions, (0, 1, 1, 0), shared).to(backbone.device) for shared in (True, False)]
    shared, plain = (_by_completion(wanted_states(backbone, batch).float(), batch, completions) for batch in both)
    apart = float((shared - plain).norm() / plain.norm())
    bound = 1e-3 if backbone.dtype in (torch.float32, torch.float64) else 0.05
    return None if apart < bound else f"{type(backbone).__name__}'s states come out differently ({apart:.1e})"


def _by_completion(states: torch.Tensor, batch: Batch, completions: Sequence[Ids]) -> torch.Tensor:
    """Return states in the order of the completions."""
    pieces = states.split([len(completions[i]) for i in batch.order])
    return torch.cat([pieces[batch.order.index(i)] for i in range(len(completions))])


def _forward(backbone: Callable[..., Any], bucket: Bucket, **known: Any) -> torch.Tensor:
    arguments = {"attention_mask": bucket.mask, "use_cache": False, **known}
    states: torch.Tensor = backbone(input_ids=bucket.ids, **arguments).last_hidden_state
    return states


def _rows_of(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """Return a cache that begins with the keys and values of some rows of another."""
    chosen = DynamicCache()
    for layer in cache.layers:
        own = DynamicLayer()
        own.lazy_initialization(layer.keys, layer.values)
        own.keys, own.values = layer.keys[rows], layer.values[rows]
        chosen.layers.append(own)
    return chosen


def _alike(order: list[int], rows: list[list[int]], least_fill: float) -> Iterator[list[int]]:
    """Cut rows, longest first, into buckets of like length."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or len(rows[order[end]]) < least_fill * len(rows[order[start]]):
            yield order[start:end]
            start = end


def _bucket(chosen: list[int], rows: list[list[int]], completions: Sequence[Ids], prompt_of: Sequence[int]) -> Bucket:
    width = len(rows[chosen[0]])
    ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in chosen])
    place = torch.arange(width)
    ends = torch.tensor([len(rows[i]) for i in chosen])[:, None]
    starts = torch.tensor([len(rows[i]) - len(completions[i]) for i in chosen])[:, None]
    wanted = (place >= starts - 1) & (place < ends - 1)
    return Bucket(ids, (place < ends).long(), wanted, torch.tensor([prompt_of[i] for i in chosen]))


def _padded_left(sequences: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, sequences))
    pads = [width - len(ids) for ids in sequences]
    ids = torch.tensor([[0] * pad + list(own) for pad, own in zip(pads, sequences, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    return ids, mask
