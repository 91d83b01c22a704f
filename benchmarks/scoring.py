"""Scoring k completions a prompt, against what a script does: fixed padded batches, and one sequence at a time.

All sides take token ids to rewards with the same model, type and threads. Ours is what scores in `score_completions`:
a prompt is computed once for its completions, rows of like length are forwarded together. The others forward each
completion behind its prompt: in batches of 64 as they come, padded on the right, or one by one without any padding.
On the CPU vLLM is a third, with prefix caching (`scoring.engine: vllm`); its cache is emptied before each turn, and its
start is told apart. The rewards of all sides must be equal; on a GPU the type is bfloat16, and they are equal to its
rounding, which is small beside what tells rewards apart.

    python benchmarks/scoring.py [--device cpu|cuda] [--model M | --size tiny|1b] [--rounds 3] [--prompts 6]
"""

import functools
import importlib.util
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch
from _models import add_size, build, llama
from _side_by_side import Row, faster, options, parse, peak, report, take_turns
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from tasks.config.settings import ScoringConfig
from tasks.examples.world import write_base_model
from tasks.lm.batches import Sequences
from tasks.lm.layout import lay_out
from tasks.rewards.engines import EQUAL
from tasks.rewards.model import CompletionRewards
from tasks.rewards.vllm_rewards import VllmRewards

K, PROMPT, COMPLETION, LONGEST, FIXED = 16, 175, 256, 512, 64
SPREAD = 0.5
"""Standard deviation of the logarithm of a length."""
PAD = 0
ROUNDED = 0.25
"""How far apart rewards of two sides may be in bfloat16, as a share of their standard deviation."""


class Texts(NamedTuple):
    """Prompts in random order, each with k completions after one another."""

    sequences: Sequences
    whole: list[torch.Tensor]
    """Token ids of each prompt and completion, joined."""


def shape(size: str) -> LlamaConfig:
    """Return the configuration of a random model; the tiny one has a head for scoring like HH's small models."""
    if size != "tiny":
        return llama(size, num_labels=1, pad_token_id=PAD)
    own = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaConfig(vocab_size=2048, max_position_embeddings=2048, num_labels=1, pad_token_id=PAD, **own)


def load(name: str | None, size: str, device: str) -> LlamaForSequenceClassification:
    """Return a model with a random head of a size that makes rewards differ by far more than rounding does."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if name is None:
        model = build(LlamaForSequenceClassification, shape(size), device, dtype)
    else:
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, dtype=dtype)
        model.config.pad_token_id = PAD
    torch.nn.init.normal_(model.score.weight, std=model.config.hidden_size**-0.5)
    return model.to(device).eval()


def draw(prompts: int, vocabulary: int) -> Texts:
    """Draw token ids, with lengths as skewed as those of real texts: evenly spaced quantiles of a log-normal law."""
    random, normal = np.random.default_rng(0), NormalDist(sigma=SPREAD)

    def ids(mean: int, number: int) -> list[list[int]]:
        quantiles = [normal.inv_cdf((place + 0.5) / number) for place in random.permutation(number)]
        lengths = (mean * np.exp(np.array(quantiles) - SPREAD**2 / 2)).clip(1, LONGEST).astype(int)
        return [random.integers(PAD + 1, vocabulary, length).tolist() for length in lengths]

    prompt_of = [number for number in range(prompts) for _ in range(K)]
    sequences = Sequences(ids(PROMPT, prompts), ids(COMPLETION, prompts * K), prompt_of)
    return Texts(sequences, [torch.tensor(own) for own in sequences.joined().completions])


def in_batches(model: LlamaForSequenceClassification, texts: Texts, rows: int) -> np.ndarray:
    """Return the rewards by batches of so many sequences as they come, padded on the right."""
    rewards = []
    for start in range(0, len(texts.whole), rows):
        batch = texts.whole[start : start + rows]
        ids = pad_sequence(batch, batch_first=True, padding_value=PAD).to(model.device)
        mask = pad_sequence([torch.ones_like(own) for own in batch], batch_first=True).to(model.device)
        with torch.inference_mode():
            rewards.append(model(input_ids=ids, attention_mask=mask if rows > 1 else None).logits[:, 0])
    return torch.cat(rewards).float().cpu().numpy()


def against_vllm(
    model: LlamaForSequenceClassification, texts: Texts, rewards: CompletionRewards, rounds: int
) -> tuple[Row, dict[str, Any]]:
    """Return the row of vLLM, and how long it took to start; its rewards must be ours."""
    with tempfile.TemporaryDirectory() as folder:
        write_base_model(Path(folder), seed=0)  # for a tokenizer, which vLLM loads and nobody asks
        model.save_pretrained(folder)
        start = time.perf_counter()
        engine = VllmRewards(Path(folder), ScoringConfig(), 2 * LONGEST, trust_remote_code=False)
        facts = {"start of vLLM": f"{time.perf_counter() - start:.1f} s"}

        def vllm() -> np.ndarray:
            engine.llm.reset_prefix_cache()
            return engine(*texts.sequences)

        if (apart := np.abs(vllm() - rewards(*texts.sequences)).max()) > EQUAL:
            raise ValueError(f"rewards of vLLM are {apart} from ours, more than {EQUAL}")
        row = faster("scoring, against vLLM", take_turns(lambda: rewards(*texts.sequences), vllm, rounds))
        engine.close()
    return row, facts


def forwarded(rewards: CompletionRewards, texts: Texts) -> Iterator[tuple[str, str]]:
    """Yield the tokens that each side forwards, without and with padding."""
    sequences = texts.sequences
    lengths = np.array([len(own) for own in texts.whole])
    fixed = sum(len(own) * own.max() for own in np.split(lengths, range(FIXED, len(lengths), FIXED)))
    batches = [
        lay_out(sequences.subset(rows), shared=True)
        for rows in sequences.batches(range(len(lengths)), rewards.budget.tokens)
    ]
    parts = [part for own in batches for part in own.parts]
    padded = sum(bucket.ids.numel() for part in parts for bucket in part.buckets)
    padded += sum(part.prefix[0].numel() for part in parts if part.prefix)
    yield f"tokens forwarded by ours, in {len(batches)} batches", f"{sum(own.tokens for own in batches)} ({padded})"
    yield f"by batches of {FIXED}", f"{lengths.sum()} ({fixed})"
    yield "one by one", f"{lengths.sum()} ({lengths.sum()})"


def main() -> None:
    """Check that the rewards are equal, time the sides and report."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--prompts", type=int, help="6, or 64 on a GPU")
    add_size(parser)
    chosen = parse(parser)
    on_gpu = chosen.device == "cuda"
    size, prompts = chosen.size or ("1b" if on_gpu else "tiny"), chosen.prompts or (64 if on_gpu else 6)
    model = load(chosen.model, size, chosen.device)
    texts, rewards = draw(prompts, model.config.get_text_config().vocab_size), CompletionRewards(model)
    expected = in_batches(model, texts, 1)
    bound = ROUNDED * float(expected.std()) if on_gpu else 1e-5
    apart = [np.abs(found - expected).max() for found in (rewards(*texts.sequences), in_batches(model, texts, FIXED))]
    if rewards.not_shared or max(apart) > bound:
        raise ValueError(f"rewards are {apart} apart, more than {bound}; not shared: {rewards.not_shared}")
    facts = {
        "model": f"{chosen.model or 'random Llama'}, {model.num_parameters() / 1e6:.1f}M parameters, {model.dtype}",
        "completions": f"{len(texts.whole)} of {prompts} prompts",
        "mean tokens": f"prompt {np.mean([len(own) for own in texts.sequences.prompts]):.0f}, "
        f"completion {np.mean([len(own) for own in texts.sequences.completions]):.0f}",
        "rewards": f"standard deviation {expected.std():.3g}, sides {max(apart):.1g} apart",
        "tokens a batch": rewards.budget.tokens,
        **dict(forwarded(rewards, texts)),
    }
    sides = {
        f"scoring, against batches of {FIXED}": (FIXED, 3.0),
        "scoring, against one by one": (1, 3.0 if on_gpu else 1.5),
    }
    rows = []
    for name, (size, least) in sides.items():
        other = functools.partial(in_batches, model, texts, size)
        rows.append(faster(name, take_turns(lambda: rewards(*texts.sequences), other, chosen.rounds), least))
    if not on_gpu and importlib.util.find_spec("vllm") is not None:  # which takes all of a card's memory
        row, told = against_vllm(model, texts, rewards, chosen.rounds)
        rows.append(row)
        facts |= told
    if on_gpu:
        facts["peak of GPU memory"] = f"{peak():.1f} GB"
    report("Scoring", facts, rows, chosen)


if __name__ == "__main__":
    main()
