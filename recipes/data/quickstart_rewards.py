"""Reward functions of the quickstart: plain Python, called as TRL calls reward functions."""

import re


def closeness(
    prompts: list[str], completions: list[str], answer: list[str], scale: float = 10.0, **columns: object
) -> list[float]:
    """1 for the true number, falling with the distance from it to 0 at `scale` away, and -0.5 where there is no number.

    A graded reward: right or wrong alone gives J-BOND too few comparisons to learn from.
    """
    return [_closeness(completion, int(truth), scale) for completion, truth in zip(completions, answer, strict=True)]


def _closeness(completion: str, truth: int, scale: float) -> float:
    numbers = re.findall(r"-?\d+", completion)
    if len(numbers) != 1 or len(numbers[0]) > 6:
        return -0.5
    return max(0.0, 1.0 - abs(int(numbers[0]) - truth) / scale)
