"""Bradley-Terry model of preferences: P(chosen over rejected) = sigmoid(reward of chosen - reward of rejected)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

Z_95 = 1.959964  # two-sided 95% quantile of the standard normal


@dataclass(frozen=True)
class Accuracy:
    """Share of pairs that a reward model ranks correctly, with its 95% confidence interval."""

    mean: float
    low: float
    high: float


def bradley_terry_loss(margin_P: Tensor) -> Tensor:
    """Compute the mean of -log sigmoid(margin) over pairs, in nats; log 2 for a constant reward.

    Args:
        margin_P: reward of the chosen minus reward of the rejected completion, [P].
    """
    return softplus(-margin_P).mean()


def rightness(margin: float) -> float:
    """Return 1 if the chosen completion has the larger reward, 1/2 for a tie, else 0."""
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def accuracy(margins: Sequence[float], independent: int | None = None) -> Accuracy:
    """Return the share of pairs whose chosen completion has the larger reward; a tie counts one half.

    Args:
        margins: reward of the chosen minus reward of the rejected completion, per pair; at least one.
        independent: number of independent observations among them, such as distinct prompts; None: all pairs.

    Returns:
        The share with its Wilson score interval, which has a positive width even at 0 and 1.
    """
    share = sum(rightness(margin) for margin in margins) / len(margins)
    count = independent or len(margins)
    shrink = 1.0 + Z_95**2 / count
    centre = (share + Z_95**2 / (2 * count)) / shrink
    half = Z_95 / shrink * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    return Accuracy(share, min(share, centre - half), max(share, centre + half))
