"""Quantiles of the policy's samples among the anchor's samples, estimated by counting (BOND, section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemsmith.rl.algorithms.algorithm import Rollouts
from gemsmith.rl.algorithms.best_of_n import log_quantile_estimate


@dataclass(frozen=True)
class Placed:
    """Log-quantiles of one sample per prompt among the anchor's samples, [P] in nats.

    Attributes:
        log_at_most_P: log p<=, where p<= is the probability that an anchor sample is not better.
        log_below_P: log p<, where p< is the probability that an anchor sample is worse; None if not estimated.
    """

    log_at_most_P: Tensor
    log_below_P: Tensor | None = None


def counted(reward_P: Tensor, anchor_reward_PK: Tensor) -> Placed:
    """Estimate both quantiles from the rewards of K anchor samples, [P, K].

    p<= is (c + 1/2) / (K + 1/2), where c samples are not better. p< is p<= times the share of those c that are worse:
    0 if all c are ties, and p<= if there is no tie (including c = 0).
    """
    # p< is derived from p<= rather than estimated on its own, so that p< / p<= in log B (theorem 1) stays in [0, 1].
    log_at_most_P = log_quantile_estimate(reward_P, anchor_reward_PK)
    not_better_P = (anchor_reward_PK <= reward_P[:, None]).sum(dim=1)
    worse_P = (anchor_reward_PK < reward_P[:, None]).sum(dim=1)
    share_P = torch.where(not_better_P > 0, worse_P / not_better_P.clamp(min=1), 1.0)
    return Placed(log_at_most_P, log_at_most_P + share_P.log())


class SampledQuantile:
    """Quantile estimator that counts among the anchor's first k samples."""

    def __init__(self, samples: int) -> None:
        """Set k, the number of anchor samples per prompt to count among."""
        self.samples = samples

    def place(self, rollouts: Rollouts) -> tuple[Placed, dict[str, float]]:
        """Return the quantiles of the policy's first sample of each prompt, [P], and no metrics."""
        assert rollouts.anchor is not None
        return counted(rollouts.policy.learnt_reward_PN[:, 0], rollouts.anchor.learnt_reward_PN[:, : self.samples]), {}
