"""Reading curves of reward over KL when judging: runs are compared where they have gone equally far.

Only `judge` and `draw` may use it: its code is no part of what makes a measurement be kept.
"""

from collections.abc import Sequence
from itertools import pairwise


def at(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The curve's value at x, between its points by straight lines; NaN beyond its ends. Points may be in any order."""
    points = sorted((point[0], point[1]) for point in curve)
    for (left, low), (right, high) in pairwise(points):
        if left <= x <= right:
            return low if right == left else low + (high - low) * (x - left) / (right - left)
    return float("nan")


def at_kl(front: Sequence[tuple[float, float]], kl: float) -> float:
    """The reward of a front of (KL, reward) at a KL, between its points by straight lines over the root of KL.

    Reward grows about as the root of KL, so that a front of few points is not taken to sag between them.
    """
    return at([(max(0.0, point[0]) ** 0.5, point[1]) for point in front], kl**0.5)
