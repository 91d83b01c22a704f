"""OpenAssistant's reward models: loaded without their code, and scored as a computation by hand."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForSequenceClassification, GPTNeoXModel, PreTrainedTokenizerFast

from tasks.config.sections import ModelSource
from tasks.config.settings import ScoringConfig
from tasks.import_model import model_files
from tasks.lm.tokens import encode_conversation
from tasks.rewards.reward_model import RewardModel

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["<|endoftext|>", "<|padding|>", "<|prompter|>", "<|assistant|>", *"abcdefghij", "\n"]
SHAPE = {"vocab_size": 16, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEMPLATE = (
    "{% for m in messages %}{{ '<|prompter|>' if m.role == 'user' else '<|assistant|>' }}{{ m.content }}"
    "<|endoftext|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PROMPTS = [[{"role": "user", "content": text}] for text in ("abc", "abc", "jihgfedcba", "c")]
COMPLETIONS = ["aab", "jjjjjjjj", "d", ""]


def save_tokenizer(folder):
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=WORDS[0], bos_token=WORDS[0], unk_token=WORDS[0], chat_template=TEMPLATE
    )
    fast.add_special_tokens({"additional_special_tokens": WORDS[1:4]})
    fast.save_pretrained(folder)


def body(folder):
    """Save GPT-NeoX's body and tokenizer; return the body with weights that tell tokens apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPTNeoXModel(GPTNeoXConfig(**SHAPE, bos_token_id=0, eos_token_id=0, initializer_range=0.3)).eval()
        head = torch.randn(1, 32), torch.tensor([0.7])
    save_tokenizer(folder)
    return model, head


def into_the_store(folder):
    """Write what importing the folder into a store would."""
    for name, content in model_files(folder, ModelSource(path=str(folder)), "reward_model").items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
    return folder


def openassistant(folder, pooling, **changes):
    """Write a folder as OpenAssistant's training code does."""
    model, (weight, bias) = body(folder)
    weights = {f"gpt_neox.{name}": value for name, value in model.state_dict().items()}
    weights |= {"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)}  # of older releases
    save_file(
        {**weights, "out_proj.weight": weight, "out_proj.bias": bias}, folder / "model.safetensors", {"format": "pt"}
    )
    config = {**SHAPE, "architectures": ["GPTNeoXRewardModel"], "model_type": "gpt_neox_reward_model"}
    config |= {
        "bos_token_id": 0,
        "eos_token_id": 0,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "layer_norm_eps": 1e-5,
    }
    config |= {"torch_dtype": "float16", "transformers_version": "4.28.0.dev0", "pooling": pooling, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return model, weight, bias


def expected(scorer, model, weight, bias, pool):
    """Return the rewards, one plain forward pass of the body a sequence."""
    found = []
    for messages, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = encode_conversation(scorer.tokenizer, messages, completion)
        with torch.inference_mode():
            states = model(torch.tensor([ids])).last_hidden_state[0]
        found.append(float(pool(states) @ weight[0] + bias))
    return found


@pytest.mark.parametrize(("pooling", "pool"), [("last", lambda s: s[-1]), ("mean", lambda s: s.mean(0))])
def test_scores_by_hand(tmp_path, pooling, pool):
    model, weight, bias = openassistant(tmp_path, pooling)
    scorer = RewardModel(into_the_store(tmp_path), ScoringConfig())
    assert (scorer.rewards.not_shared is None) == (pooling == "last")
    found = scorer.score(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(found, expected(scorer, model, weight, bias, pool), atol=1e-5)
    assert np.diff(np.sort(found)).min() > 1e-2
    alone = [scorer.score([p], [c])[0] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_tokenizer_that_names_no_class(tmp_path):
    openassistant(tmp_path, "last")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert np.isfinite(RewardModel(into_the_store(tmp_path), ScoringConfig()).score(PROMPTS, COMPLETIONS)).all()


def test_another_pooling_is_refused_by_name(tmp_path):
    openassistant(tmp_path, "max")
    with pytest.raises(ValueError, match=r"pooling = 'max' in .*config.json must be last or mean"):
        into_the_store(tmp_path)


def test_the_architecture_under_the_plain_type_is_no_reward_model(tmp_path):
    openassistant(tmp_path, "last", model_type="gpt_neox")
    with pytest.raises(ValueError, match="no reward model"):
        into_the_store(tmp_path)


def test_in_bfloat16_the_head_keeps_float32(tmp_path):
    model, weight, bias = openassistant(tmp_path, "mean")
    scorer = RewardModel(into_the_store(tmp_path), ScoringConfig(dtype="bfloat16"))
    assert scorer.rewards.model.out_proj.weight.dtype == torch.float32
    np.testing.assert_allclose(
        scorer.score(PROMPTS, COMPLETIONS),
        expected(scorer, model, weight, bias, lambda s: s.mean(0)),
        rtol=0.05,
        atol=0.1,
    )


def test_transformers_own_reward_models_of_the_family_load_as_before(tmp_path):
    model, (weight, _) = body(tmp_path)
    config = GPTNeoXConfig(**SHAPE, bos_token_id=0, eos_token_id=0, pad_token_id=1, num_labels=1)
    whole = GPTNeoXForSequenceClassification(config)
    whole.gpt_neox.load_state_dict(model.state_dict())
    whole.score.weight.data.copy_(weight)
    whole.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": WORDS[1]}))
    assert set(load_file(tmp_path / "model.safetensors")) >= {"score.weight"}
    scorer = RewardModel(into_the_store(tmp_path), ScoringConfig())
    assert scorer.rewards.not_shared is None
    np.testing.assert_allclose(
        scorer.score(PROMPTS, COMPLETIONS), expected(scorer, model, weight, 0.0, lambda s: s[-1]), atol=1e-5
    )
