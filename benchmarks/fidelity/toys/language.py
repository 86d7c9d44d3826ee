"""A toy language over the letters A to P: a Markov chain that favours the letters of the prompt and ends by chance."""

import math
import random

LETTERS = "ABCDEFGHIJKLMNOP"
LONGEST = 14  # letters


class Language:
    """Completions as a Markov chain over letters.

    Args:
        seed: of the transitions.
        ends: chance that a completion ends after each letter from the fourth on.
        favour: how many times likelier the prompt's letters are.
    """

    def __init__(self, seed: int, ends: float = 0.15, favour: float = 3.0) -> None:
        draw = random.Random(f"language {seed}")
        self.ends, self.favour = ends, favour
        self.weights = {a: [math.exp(draw.gauss(0, 1)) for _ in LETTERS] for a in ("", *LETTERS)}

    def completion(self, prompt: str, draw: random.Random) -> str:
        """One completion of a prompt."""
        letters = ""
        while len(letters) < LONGEST and (len(letters) < 4 or draw.random() > self.ends):
            weights = self.weights[letters[-1:]]
            favoured = [w * (self.favour if a in prompt else 1) for a, w in zip(LETTERS, weights, strict=True)]
            letters += draw.choices(LETTERS, favoured)[0]
        return letters


def prompts(count: int, draw: random.Random) -> list[str]:
    """Distinct prompts: three different letters each; there are 3,360."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(draw.sample(LETTERS, 3))] = None
    return list(found)
