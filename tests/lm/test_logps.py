"""Log-probabilities of completions: against a plain loop, whatever is in the batch."""

import copy

import numpy as np
import pytest
import torch
from random_groups import neox
from transformers import AutoModelForCausalLM

from tasks.lm.logps import CompletionLogps

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[1], [1, 403, 407, 261], [1, 30, 31, 32, 33, 34, 35, 36], [1, 403]]
COMPLETIONS = [[403, 407, 261, 378, 432, 383], [378, 432], [2], [407, 300, 301, 302, 303, 304, 305, 306, 307, 2]]


@pytest.fixture(scope="module")
def policy(test_data):
    return AutoModelForCausalLM.from_pretrained(test_data / "stories260k").eval()


def by_hand(model, prompt, completion):
    """Add up log pi(y_t | x, y_<t), one forward pass a token."""
    total = 0.0
    for end, token in enumerate(completion):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + completion[:end]])).logits[0, -1]
        total += torch.log_softmax(logits.double(), -1)[token].item()
    return total


def logps(policy, prompts, completions, tokens_per_batch=10_000):
    """Return the log-probabilities; a prompt that occurs twice is one prompt of two completions."""
    unique = [list(ids) for ids in dict.fromkeys(map(tuple, prompts))]
    prompt_of = [unique.index(prompt) for prompt in prompts]
    return CompletionLogps(copy.deepcopy(policy), tokens_per_batch)(unique, completions, prompt_of)


def test_equals_a_plain_loop(policy):
    expected = [by_hand(policy, x, y) for x, y in zip(PROMPTS, COMPLETIONS, strict=True)]
    np.testing.assert_allclose(logps(policy, PROMPTS, COMPLETIONS), expected, atol=1e-4)
    # The first is how the model's favourite story begins, the third ends at once: far apart, so the test can fail.
    assert expected[0] > -6
    assert expected[2] < expected[0] - 5


@pytest.mark.parametrize("tokens_per_batch", [1, 20, 10_000])
def test_does_not_depend_on_the_batch(policy, tokens_per_batch):
    alone = [logps(policy, [x], [y])[0] for x, y in zip(PROMPTS, COMPLETIONS, strict=True)]
    together = logps(policy, PROMPTS[::-1], COMPLETIONS[::-1], tokens_per_batch)
    np.testing.assert_allclose(together[::-1], alone, atol=1e-5)


def test_the_prompt_does_not_count(policy):
    # log pi(ab | x) = log pi(a | x) + log pi(b | xa)
    whole, first, second = (
        logps(policy, [x], [y])[0] for x, y in [([1], [403, 407, 261]), ([1], [403]), ([1, 403], [407, 261])]
    )
    assert whole == pytest.approx(first + second, abs=1e-5)
    assert second < -1e-4


def test_an_empty_completion_is_certain(policy):
    assert logps(policy, [[1, 403], [1]], [[], [403]])[0] == 0


def test_no_completions_give_no_figures(policy):
    assert logps(policy, [], []).shape == (0,)


def test_completions_of_one_prompt(policy):
    same = [PROMPTS[1]] * len(COMPLETIONS)
    expected = [by_hand(policy, PROMPTS[1], y) for y in COMPLETIONS]
    np.testing.assert_allclose(logps(policy, same, COMPLETIONS), expected, atol=1e-4)


def test_out_of_memory_halves_the_budget_for_good(capsys):
    prompts, prompt_of = [[5, 6, 7], [8, 9]], [0] * 6 + [1] * 6
    completions = [[number, 3, 4, 5, 6] for number in range(10, 22)]
    expected, model = CompletionLogps(neox())(prompts, completions, prompt_of), neox()

    def check(module, inputs):
        if inputs[0].numel() > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")

    logps, heard = CompletionLogps(model, 1000), []
    model.get_input_embeddings().register_forward_pre_hook(check)
    np.testing.assert_allclose(logps(prompts, completions, prompt_of, heard.append), expected, atol=1e-5)
    assert len(heard) > 1
    np.testing.assert_allclose(sorted(np.concatenate(heard)), sorted(expected), atol=1e-5)
    # 12 x (3 + 5) do not fit, nor do 48 and 24 tokens (a bucket of 3 rows of 6 does)
    assert "out of memory at 96 tokens a batch: going on with 48" in capsys.readouterr().out
    assert logps.budget.tokens < 48


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_in_bfloat16_they_are_near_those_in_float32(policy, autocast):
    model = copy.deepcopy(policy) if autocast else copy.deepcopy(policy).bfloat16()
    found = CompletionLogps(model, autocast=autocast)(PROMPTS, COMPLETIONS, range(len(PROMPTS)))
    exact = CompletionLogps(copy.deepcopy(policy))(PROMPTS, COMPLETIONS, range(len(PROMPTS)))
    np.testing.assert_allclose(found, exact, rtol=0.02, atol=0.1)
    assert (found != exact).all()
