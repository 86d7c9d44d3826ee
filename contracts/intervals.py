"""Means and paired differences with 95% intervals over prompts, because samples of one prompt are alike.

`benchmarks/intervals.py` simulates their coverage, and how often a difference is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_PRIOR_PROMPTS = 2.0  # weight, in prompts, of the assumption that the samples of a prompt agree


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A mean difference between two policies on the same prompts, with the two-sided p-value of no difference.

    Attributes:
        p_value: probability of a difference at least as large if the policies were equally good.
        prompts: number of prompts that both answered.
    """

    p_value: float
    prompts: int

    @property
    def apart(self) -> bool:
        """Return True if the interval excludes 0."""
        return self.low > 0 or self.high < 0


def rate_interval(passed: Sequence[float], prompts: Sequence[int]) -> Interval:
    """Return a share with its interval: Clopper-Pearson's at the effective number of samples (Korn and Graubard 1998).

    The samples of a prompt are alike, so n samples count for fewer: n divided by the design effect, estimated from the
    prompts and corrected for their number by Student's t. Where few prompts show the rarer outcome, the estimate is too
    low; there it is drawn towards the assumption that the samples of a prompt agree. Without one such prompt the
    number of prompts counts.

    Args:
        passed: 1 or 0 for each completion.
        prompts: number of the prompt that each completion belongs to; any integers.

    Returns:
        The interval. Its width is never 0.

    Raises:
        ValueError: there are no values, or the two lists differ in length.
    """
    total_P, count_P = _by_prompt(passed, prompts)
    size, total, clusters = float(count_P.sum()), float(total_P.sum()), len(total_P)
    rate, per_prompt = total / size, size / clusters
    residual_P = total_P - rate * count_P
    variance = clusters / max(clusters - 1, 1) * float((residual_P**2).sum()) / size**2
    # Number of prompts that show the rarer outcome at least once.
    showing = min(int((total_P > 0).sum()), int((total_P < count_P).sum()))
    design = size * variance / (rate * (1 - rate)) if showing else per_prompt
    weight = showing / (showing + _PRIOR_PROMPTS)
    design = max(1.0, weight * design + (1 - weight) * max(design, per_prompt))
    effective = size / design
    if clusters > 1 and size > 1:
        effective *= (special.stdtrit(size - 1, 1 - _TAIL) / special.stdtrit(clusters - 1, 1 - _TAIL)) ** 2
    effective = max(effective, 1.0)
    passes = rate * effective
    low = special.betaincinv(passes, effective - passes + 1, _TAIL) if rate > 0 else 0.0
    high = special.betaincinv(passes + 1, effective - passes, 1 - _TAIL) if rate < 1 else 1.0
    return Interval(rate, float(low), float(high))


def mean_interval(values: Sequence[float], prompts: Sequence[int]) -> Interval:
    """Return the mean of all values with Student's interval over prompts.

    Args:
        values: one number for each completion.
        prompts: number of the prompt that each completion belongs to; any integers.

    Returns:
        The interval. With one prompt it is over its completions. Its width is 0 if all prompts agree, because the data
        then show no variation.

    Raises:
        ValueError: there are no values, or the two lists differ in length.
    """
    total_P, count_P = _by_prompt(values, prompts)
    if len(total_P) == 1 and len(values) > 1:
        return mean_interval(values, range(len(values)))
    mean, clusters = float(np.mean(np.asarray(values, dtype=np.float64))), len(total_P)
    if np.all(total_P * count_P[0] == total_P[0] * count_P):
        return Interval(mean, mean, mean)
    residual_P = total_P - mean * count_P
    error = float(np.sqrt(clusters / (clusters - 1) * (residual_P**2).sum()) / count_P.sum())
    reach = float(special.stdtrit(clusters - 1, 1 - _TAIL)) * error
    return Interval(mean, mean - reach, mean + reach)


def paired_difference(
    values: Sequence[float], prompts: Sequence[int], others: Sequence[float], other_prompts: Sequence[int]
) -> Difference | None:
    """Return the mean over prompts of the difference between two policies, with Student's interval and p-value.

    Prompts differ much more than policies, and their difficulty cancels within a prompt. If all values are 0 or 1, two
    prompts with a difference of one sample, one each way, are added to the variance and the number of prompts (Bonett
    and Price 2012, for one sample per prompt), because a few prompts may show no or too little variation.

    Args:
        values: one number for each completion of the first policy.
        prompts: number of the prompt that each belongs to.
        others: one number for each completion of the second policy.
        other_prompts: number of the prompt that each belongs to.

    Returns:
        The first policy's mean minus the second's on the prompts that both answered; None if there is no such prompt.
    """
    first, second = _means(values, prompts), _means(others, other_prompts)
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    difference_P = np.array([first[prompt] - second[prompt] for prompt in shared])
    mean, size = float(difference_P.mean()), len(shared)
    if size == 1:
        return Difference(mean, mean - abs(mean), mean + abs(mean), 1.0, 1)
    centre, variance = mean, float(difference_P.var(ddof=1)) / size
    if set(map(float, [*values, *others])) <= {0.0, 1.0}:
        sample = (len(first) + len(second)) / (len(values) + len(others))  # one over the samples per prompt
        centre = float(difference_P.sum()) / (size + 2)
        spread = (float((difference_P**2).sum()) + 2 * sample**2) / (size + 2) - centre**2
        variance = spread / (size + 1)
    if variance <= 0:  # all prompts differ by the same amount: the sign test is all that is left
        return Difference(mean, mean, mean, float(min(1.0, 2.0 ** (1 - size))) if mean else 1.0, size)
    error = float(np.sqrt(variance))
    reach = float(special.stdtrit(size - 1, 1 - _TAIL)) * error
    p_value = float(2 * special.stdtr(size - 1, -abs(centre) / error))
    return Difference(mean, centre - reach, centre + reach, p_value, size)


def _by_prompt(values: Sequence[float], prompts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of each prompt's values, [P] each.

    Raises:
        ValueError: there are no values, or the two lists differ in length.
    """
    if len(values) != len(prompts) or not len(values):
        raise ValueError(
            f"found {len(values)} values for {len(prompts)} prompt numbers; expected one each, at least one"
        )
    _, prompt_S = np.unique(np.asarray(prompts), return_inverse=True)
    return np.bincount(prompt_S, weights=np.asarray(values, dtype=np.float64)), np.bincount(prompt_S)


def _means(values: Sequence[float], prompts: Sequence[int]) -> dict[int, float]:
    """Return each prompt's mean value."""
    if not len(values):
        return {}
    total_P, count_P = _by_prompt(values, prompts)
    return {int(p): float(t / c) for p, t, c in zip(np.unique(np.asarray(prompts)), total_P, count_P, strict=True)}
