"""What the engines are asked for, and what they draw."""

from tasks.config.settings import Decoding

STORY = "Once upon a time, there was a little girl named Lily."
GREEDY = Decoding(temperature=0, max_new_tokens=18)
LIMIT = 96


def draw(engine, decoding, prompts, seeds):
    engine.decoding = decoding
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        engine.add(number, prompt, seed, decoding.k)
    drawn = {}
    while len(drawn) < len(prompts):
        drawn |= engine.step()
    return [drawn[number] for number in range(len(prompts))]
