"""The true ("gold") reward of completions of the toy language. Imports no torch.

It has a part that few preferences teach (the letters), one that takes many (pairs of letters), and parts that a policy
can leave behind when it optimises a model of the rest (the prompt's letters, repetition, length).
"""

import random
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.fidelity.toys.language import LETTERS

USUAL_LENGTH, LENGTH_SCALE = 8, 4.0
STRANGER = -1.0  # value of a character that is no letter


class Gold:
    """The true reward of a completion; a reward in the calling convention of TRL.

    The sum of: the mean value of its letters, times 3; half that of its pairs of neighbours, times 3; 0.5 for each of
    the prompt's letters that occurs; minus twice the share of letters that stood among the three before them; minus the
    squared distance of the length from 8 letters, in units of 4 letters. Values of letters and pairs are normal.
    """

    def __init__(self, seed: int) -> None:
        draw = random.Random(f"gold {seed}")
        self.letter = {a: draw.gauss(0, 1) for a in LETTERS}
        self.pair = {(a, b): draw.gauss(0, 1) for a in LETTERS for b in LETTERS}

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float]:
        """Return the gold reward of each completion."""
        return [self.of(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]

    def of(self, prompt: str, completion: str) -> float:
        """Return the gold reward of one completion."""
        length = len(completion)
        distance = ((length - USUAL_LENGTH) / LENGTH_SCALE) ** 2
        if not length:
            return -4.0 - distance
        letters = sum(self.letter.get(a, STRANGER) for a in completion) / length
        pairs = sum(self.pair.get(pair, STRANGER) for pair in pairwise(completion)) / length
        kept = sum(a in completion for a in prompt)
        again = sum(a in completion[max(0, i - 3) : i] for i, a in enumerate(completion)) / length
        return 3.0 * (letters + 0.5 * pairs) + 0.5 * kept - 2.0 * again - distance
