"""Random groups of pairs, and a tiny model and tokenizer to train on them."""

import torch
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPTNeoXConfig, PreTrainedModel, PreTrainedTokenizerFast

from tasks.lm.turns import TEXT_TEMPLATE
from tasks.training.packs import DpoExample

VOCABULARY = 40
TOKEN = st.integers(2, VOCABULARY - 1)


@st.composite
def groups(draw: st.DrawFn, most: int = 4) -> list[DpoExample]:
    """Return some prompts with completions, of which two may be equal, and at least one pair each."""
    found = []
    for _ in range(draw(st.integers(1, most))):
        prompt = draw(st.lists(TOKEN, min_size=1, max_size=8))
        completions = draw(st.lists(st.lists(TOKEN, min_size=1, max_size=9), min_size=2, max_size=6))
        every = [(a, b) for a in range(len(completions)) for b in range(len(completions)) if a != b]
        pairs = sorted(draw(st.lists(st.sampled_from(every), min_size=1, unique=True)))
        ref_logps = draw(st.lists(st.floats(-60, -1, width=32), min_size=len(completions), max_size=len(completions)))
        chosen, rejected = zip(*pairs, strict=True)
        found.append(DpoExample(prompt, completions, ref_logps, list(chosen), list(rejected)))
    return found


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words w0, w1, ..., and no others, that joins messages as they are."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    own = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w1")
    own.chat_template = TEXT_TEMPLATE
    return own


def neox(**sizes: int) -> PreTrainedModel:
    """Return a model whose every part computes in the type of its weights, float64 included."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return AutoModelForCausalLM.from_config(GPTNeoXConfig(vocab_size=VOCABULARY, **small | sizes)).eval()
