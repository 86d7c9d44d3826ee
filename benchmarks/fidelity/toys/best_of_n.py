"""Best-of-N of drawn rewards: its law over the draws themselves, and how a policy's samples stand against it."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import fmean


def best_weights(draws: int, n: int) -> list[float]:
    """Return the chance that the k-th lowest of the draws is the best of n of them, taken without replacement, [draws].

    C(k - 1, n - 1) / C(draws, n), so that a mean with these weights over the sorted draws is an unbiased estimate of
    the mean over Best-of-n (every n of them are a fair sample).
    """
    return [math.comb(k, n - 1) / math.comb(draws, n) for k in range(draws)]


def win_rate(reward: float, drawn: Sequence[float], n: int) -> float:
    """Return the chance that a reward beats the best of n of the draws; a tie counts half. 1/2 on average if it is
    one.
    """
    ordered, whole = sorted(drawn), math.comb(len(drawn), n)
    below, at_most = bisect_left(ordered, reward), bisect_right(ordered, reward)
    return (math.comb(below, n) + math.comb(at_most, n)) / (2 * whole)


def log_quantile(reward: float, drawn: Sequence[float]) -> float:
    """log of the share of the draws that are not better, (c + 1/2) / (K + 1/2), in nats: never -inf."""
    return math.log((bisect_right(sorted(drawn), reward) + 0.5) / (len(drawn) + 0.5))


def best_of_n(drawn: Sequence[float], n: int) -> tuple[float, float]:
    """Mean reward and mean log-quantile of Best-of-n; the latter chosen in one half and judged in the other."""
    weights = best_weights(len(drawn), n)
    reward = sum(weight * value for weight, value in zip(weights, sorted(drawn), strict=True))
    half = len(drawn) // 2
    first, second = drawn[:half], drawn[half : 2 * half]
    judged = [
        sum(w * log_quantile(value, by) for w, value in zip(best_weights(half, n), sorted(of), strict=True))
        for of, by in ((first, second), (second, first))
    ]
    return reward, fmean(judged)
