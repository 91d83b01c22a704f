"""Log-probabilities of completions under a policy, summed over a completion's tokens."""

from typing import TYPE_CHECKING

import numpy as np

from tasks.artifacts import Artifact
from tasks.models import device, load_policy, model_folder, trusts_remote_code
from tasks.score import length_batches

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def completion_logps(
    policy: Artifact, prompts: list[list[int]], completions: list[list[int]], dtype: str, tokens_per_batch: int
) -> np.ndarray:
    """Return log pi(y | x) of each completion, in nats, at temperature 1.

    Args:
        policy: A causal model.
        prompts: Token ids of each x.
        completions: Token ids of each y.
        dtype: Type of the weights.
        tokens_per_batch: Most tokens in one forward pass, padding included.
    """
    import torch

    model = load_policy(model_folder(policy), dtype, trusts_remote_code(policy)).eval().to(device())
    sequences = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    logps = np.empty(len(sequences))
    for rows in length_batches([len(ids) for ids in sequences], tokens_per_batch):
        with torch.inference_mode():
            logps[rows] = (
                _batch_logps(model, [sequences[i] for i in rows], [len(prompts[i]) for i in rows]).cpu().numpy()
            )
    return logps


def _batch_logps(model: "PreTrainedModel", sequences: list[list[int]], prompt_lengths: list[int]) -> "torch.Tensor":
    """Return the summed log-probability of what follows each prompt; rows are padded on the right."""
    import torch

    width = max(len(ids) for ids in sequences)
    ids = torch.tensor([s + [0] * (width - len(s)) for s in sequences], device=model.device)
    place = torch.arange(width, device=model.device)
    lengths = torch.tensor([len(s) for s in sequences], device=model.device)[:, None]
    starts = torch.tensor(prompt_lengths, device=model.device)[:, None]
    logits = model(input_ids=ids, attention_mask=(place < lengths).long()).logits[:, :-1].float()
    tokens = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
    counted = (place[1:] >= starts) & (place[1:] < lengths)
    return (tokens.double() * counted).sum(-1)
