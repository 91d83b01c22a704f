"""transformers' `generate`, one prompt at a time: slow, and everywhere."""

from collections import deque
from pathlib import Path

from tasks.config.settings import Decoding
from tasks.lm.memory import free_memory
from tasks.lm.tokens import encode, load_tokenizer
from tasks.models.form import stop_ids
from tasks.models.loading import device, load_policy
from tasks.sampling.samples import SHORT_TEXT, Sample, check_number, cut
from tasks.sampling.seeded_sampling import seeded_sampling


class TransformersEngine:
    """Draws with `generate`, a prompt and its completions at a time."""

    name = "transformers"
    capacity = 1

    def __init__(self, model: Path, decoding: Decoding, trust_remote_code: bool) -> None:
        """Load the policy onto the GPU where there is one."""
        import torch
        from transformers import GenerationConfig

        self.decoding = decoding
        self.waiting: deque[tuple[int, list[int], int, int]] = deque()
        self.tokenizer = load_tokenizer(model, trust_remote_code)
        self.model = load_policy(model, decoding.dtype, trust_remote_code).eval().to(device())
        self.end_ids = stop_ids(model, self.tokenizer)
        ids = torch.tensor([encode(self.tokenizer, SHORT_TEXT)], device=self.model.device)
        with torch.no_grad():
            check_number(float(self.model(input_ids=ids).logits[0, -1].float().log_softmax(-1).max()), decoding.dtype)
        # The model's own sampling defaults must not sway what the settings ask for; vLLM ignores them too.
        self.model.generation_config = GenerationConfig(
            eos_token_id=sorted(self.end_ids), pad_token_id=self.tokenizer.pad_token_id
        )

    def add(self, number: int, prompt: list[int], seed: int, count: int) -> None:
        """Queue a prompt."""
        self.waiting.append((number, prompt, seed, count))

    def step(self) -> list[tuple[int, list[Sample]]]:
        """Complete the prompt that has waited longest."""
        number, prompt, seed, count = self.waiting.popleft()
        return [(number, self._complete(prompt, seed, count))]

    def close(self) -> None:
        """Free the memory."""
        del self.model
        free_memory()

    def _complete(self, ids: list[int], seed: int, count: int) -> list[Sample]:
        import torch
        from transformers import LogitsProcessorList

        settings = self.decoding
        stop = {"stop_strings": list(settings.stop), "tokenizer": self.tokenizer} if settings.stop else {}
        processors = seeded_sampling(settings, range(seed, seed + count), self.model.device)
        rows = self.model.generate(
            torch.tensor([ids] * count, device=self.model.device),
            attention_mask=torch.ones(count, len(ids), dtype=torch.long, device=self.model.device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList(processors),
            **stop,
        )
        return [cut(self.tokenizer, ids, row[len(ids) :].tolist(), self.end_ids, settings.stop) for row in rows]
