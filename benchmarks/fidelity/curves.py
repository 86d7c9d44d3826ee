"""Reading curves of reward over KL when judging: runs are compared where they have gone equally far.

Only `judge` and `draw` may use it: its code is no part of what makes a measurement be kept.
"""

from collections.abc import Sequence
from itertools import pairwise

from benchmarks.fidelity.claim import Curve


def at(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The curve's value at x, between its points by straight lines; NaN beyond its ends. Points may be in any order."""
    points = sorted((point[0], point[1]) for point in curve)
    for (left, low), (right, high) in pairwise(points):
        if left <= x <= right:
            return low if right == left else low + (high - low) * (x - left) / (right - left)
    return float("nan")


def best_within(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The largest value of the curve at points up to x, the line's own value at x among them; NaN without any."""
    found = [point[1] for point in curve if point[0] <= x]
    edge = at(curve, x)
    if edge == edge:
        found.append(edge)
    return max(found, default=float("nan"))


def front(curve: Curve) -> Curve:
    """The points that no other point beats with less x and more y, from left to right."""
    kept: Curve = []
    for point in sorted((x, y) for x, y in curve):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept
