"""The Bradley-Terry model of preferences: P(chosen over rejected) = sigmoid(reward of chosen - reward of rejected)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

Z_95 = 1.959964  # two-sided 95% quantile of the standard normal


@dataclass(frozen=True)
class Accuracy:
    """Share of pairs that a reward model orders rightly, with its 95% interval."""

    mean: float
    low: float
    high: float


def bradley_terry_loss(margin_P: Tensor) -> Tensor:
    """-log sigmoid(margin), averaged over pairs; log 2 for a model that knows nothing.

    Args:
        margin_P: reward of the chosen minus reward of the rejected completion, [P].
    """
    return softplus(-margin_P).mean()


def rightness(margin: float) -> float:
    """1 where the chosen completion has the larger reward, one half at a tie, else 0."""
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def accuracy(margins: Sequence[float], independent: int | None = None) -> Accuracy:
    """How often the chosen completion has the larger reward; a tie counts one half.

    Args:
        margins: reward of the chosen minus reward of the rejected completion, one a pair; at least one.
        independent: number of independent observations among them, such as distinct prompts; none: all pairs.

    Returns:
        The share, with the Wilson score interval, which has a width also at 0 and 1.
    """
    share = sum(rightness(margin) for margin in margins) / len(margins)
    count = independent or len(margins)
    shrink = 1.0 + Z_95**2 / count
    centre = (share + Z_95**2 / (2 * count)) / shrink
    half = Z_95 / shrink * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    return Accuracy(share, min(share, centre - half), max(share, centre + half))
