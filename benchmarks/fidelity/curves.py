"""Reading curves of reward over KL when judging: runs are compared where they have gone equally far.

Only `judge` and `draw` may use it: its code is no part of what makes a measurement be kept.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean


def at(curve: Sequence[tuple[float, float]], x: float) -> float:
    """Return the curve's value at x, linearly interpolated; NaN outside its ends. Points may be in any order."""
    points = sorted((point[0], point[1]) for point in curve)
    for (left, low), (right, high) in pairwise(points):
        if left <= x <= right:
            return low if right == left else low + (high - low) * (x - left) / (right - left)
    return float("nan")


def mean_gap(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]], low: float = 0.0) -> float:
    """Return how far the first curve lies above the second, averaged over the x from `low` that both reach.

    NaN if they share no x. It uses 101 places, so that the noise of single points has little weight.
    """
    ends = [(min(x for x, _ in curve), max(x for x, _ in curve)) for curve in (first, second)]
    left, right = max(low, *(start for start, _ in ends)), min(end for _, end in ends)
    if left >= right:
        return float("nan")
    places = [left + (right - left) * i / 100 for i in range(101)]
    return fmean(at(first, min(x, right)) - at(second, min(x, right)) for x in places)


def at_kl(front: Sequence[tuple[float, float]], kl: float) -> float:
    """Return the reward of a front of (KL, reward) at a KL, interpolated linearly over the root of KL.

    Reward grows about as the root of KL, so that a front of few points does not seem to sag between them.
    """
    return at([(max(0.0, point[0]) ** 0.5, point[1]) for point in front], kl**0.5)
