"""Reading curves of reward over KL when judging: runs are compared where they have gone equally far.

Only `judge` and `draw` may use it: its code is no part of what makes a measurement be kept.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean


def at(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The curve's value at x, between its points by straight lines; NaN beyond its ends. Points may be in any order."""
    points = sorted((point[0], point[1]) for point in curve)
    for (left, low), (right, high) in pairwise(points):
        if left <= x <= right:
            return low if right == left else low + (high - low) * (x - left) / (right - left)
    return float("nan")


def mean_gap(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]], low: float = 0.0) -> float:
    """How far the first curve lies above the second, in the mean over the x from `low` on that both reach.

    NaN where they share nothing. It asks both at 101 places, so that the noise of single points weighs little.
    """
    ends = [(min(x for x, _ in curve), max(x for x, _ in curve)) for curve in (first, second)]
    left, right = max(low, *(start for start, _ in ends)), min(end for _, end in ends)
    if left >= right:
        return float("nan")
    places = [left + (right - left) * i / 100 for i in range(101)]
    return fmean(at(first, min(x, right)) - at(second, min(x, right)) for x in places)


def at_kl(front: Sequence[tuple[float, float]], kl: float) -> float:
    """The reward of a front of (KL, reward) at a KL, between its points by straight lines over the root of KL.

    Reward grows about as the root of KL, so that a front of few points is not taken to sag between them.
    """
    return at([(max(0.0, point[0]) ** 0.5, point[1]) for point in front], kl**0.5)
