"""Metrics of a reward model on held-out pairs: accuracy, calibration, and correlation with length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation

import torch

from gemsmith.reward_models.bradley_terry import Accuracy, accuracy, bradley_terry_loss, rightness
from gemsmith.reward_models.pairs import Pair

BINS = 10  # bins of confidence from 0.5 to 1
Rewards = Sequence[tuple[float, float]]
"""Rewards of the chosen and the rejected completion of each pair."""


@dataclass(frozen=True)
class Subset:
    """Accuracy on a subset of the pairs, and the number of pairs in it."""

    accuracy: Accuracy
    pairs: int


@dataclass(frozen=True)
class Quality:
    """Metrics of one reward model.

    Attributes:
        accuracy: share of the pairs that are ranked correctly.
        by_task: accuracy on the pairs of each task; empty if no pair has a task.
        calibration_error: expected calibration error, 0 to 1; see the function `calibration_error`.
        log_loss: mean of -log P(chosen over rejected), in nats; log 2 for a constant reward.
        mean_reward: mean over all completions; preferences do not determine it, so members differ in it.
        length_correlation: correlation of reward and number of tokens; see the function `length_correlation`.
        chosen_longer: accuracy on pairs whose chosen completion has more tokens; None if there are none.
        chosen_shorter: accuracy on pairs whose chosen completion has fewer tokens; None if there are none.
    """

    accuracy: Accuracy
    by_task: dict[str, Subset]
    calibration_error: float
    log_loss: float
    mean_reward: float
    length_correlation: float | None
    chosen_longer: Subset | None
    chosen_shorter: Subset | None

    def __str__(self) -> str:
        share = self.accuracy
        text = (
            f"{share.mean:.1%} of held-out pairs ranked correctly ({share.low:.1%} to {share.high:.1%}), "
            f"calibration error {self.calibration_error:.1%}, log loss {self.log_loss:.3f}"
        )
        if self.length_correlation is not None:
            text += f", correlation with length {self.length_correlation:.2f}"
        return text


def quality(rewards: Rewards, pairs: Sequence[Pair]) -> Quality:
    """Compute all metrics from the rewards of both sides of the pairs; at least one pair is needed."""
    margins = [chosen - rejected for chosen, rejected in rewards]
    each = [reward for both in rewards for reward in both]
    tokens = [length for pair in pairs for length in pair.lengths]

    def of(those: Sequence[bool]) -> Subset | None:
        return _subset([i for i, is_one in enumerate(those) if is_one], margins, pairs)

    tasks = sorted({pair.task for pair in pairs if pair.task is not None})
    by_task = {task: of([pair.task == task for pair in pairs]) for task in tasks}
    return Quality(
        accuracy=accuracy(margins, independent=len({pair.prompt for pair in pairs})),
        by_task={task: found for task, found in by_task.items() if found},
        calibration_error=calibration_error(margins),
        log_loss=bradley_terry_loss(torch.tensor(margins, dtype=torch.float64)).item(),
        mean_reward=sum(each) / len(each),
        length_correlation=length_correlation(each, tokens),
        chosen_longer=of([pair.lengths[0] > pair.lengths[1] for pair in pairs]),
        chosen_shorter=of([pair.lengths[0] < pair.lengths[1] for pair in pairs]),
    )


def calibration_error(margins: Sequence[float]) -> float:
    """Compute the expected calibration error: the mean over pairs of |accuracy - mean confidence| in the pair's bin.

    The confidence of a pair is the probability of the side that the model prefers, sigmoid(|margin|). There are ten
    bins of equal width from 0.5 to 1. A tie counts as half correct.

    Args:
        margins: reward of the chosen minus reward of the rejected completion, per pair; at least one. If one is NaN,
            as from a model that diverged, the result is NaN.
    """
    if any(map(math.isnan, margins)):
        return math.nan
    gaps = [0.0] * BINS  # per bin: number of correct pairs minus sum of confidences
    for margin in margins:
        confidence = 1.0 / (1.0 + math.exp(-abs(margin)))
        gaps[min(int((2.0 * confidence - 1.0) * BINS), BINS - 1)] += rightness(margin) - confidence
    return sum(abs(gap) for gap in gaps) / len(margins)


def length_correlation(rewards: Sequence[float], lengths: Sequence[int]) -> float | None:
    """Return Pearson's correlation of reward and length; None if either is constant or a reward is not finite."""
    if not all(map(math.isfinite, rewards)):
        return None
    try:
        return correlation(rewards, lengths)
    except StatisticsError:
        return None


def _subset(indices: Sequence[int], margins: Sequence[float], pairs: Sequence[Pair]) -> Subset | None:
    if not indices:
        return None
    prompts = {pairs[i].prompt for i in indices}
    return Subset(accuracy([margins[i] for i in indices], independent=len(prompts)), len(indices))
