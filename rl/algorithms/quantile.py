"""Where a sample of the policy stands among the anchor's, by counting (BOND, section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemsmith.rl.algorithms.algorithm import Rollouts
from gemsmith.rl.algorithms.best_of_n import log_quantile_estimate


@dataclass(frozen=True)
class Placed:
    """log p<= and log p< of one sample of each prompt, [P] in nats; the latter is None where nothing tells it.

    p<= is the chance that a sample of the anchor is not better, p< the chance that it is worse.
    """

    log_at_most_P: Tensor
    log_below_P: Tensor | None = None


def counted(reward_P: Tensor, anchor_reward_PK: Tensor) -> Placed:
    """Both quantiles from K samples of the anchor.

    p<= is (c + 1/2) / (K + 1/2), where c samples are not better. p< is p<= times the share of those c that are worse:
    0 where all are ties, and p<= where there is no tie, as for c = 0.
    """
    log_at_most_P = log_quantile_estimate(reward_P, anchor_reward_PK)
    not_better_P = (anchor_reward_PK <= reward_P[:, None]).sum(dim=1)
    worse_P = (anchor_reward_PK < reward_P[:, None]).sum(dim=1)
    share_P = torch.where(not_better_P > 0, worse_P / not_better_P.clamp(min=1), 1.0)
    return Placed(log_at_most_P, log_at_most_P + share_P.log())


class SampledQuantile:
    """Counts among the first k samples of the anchor."""

    def __init__(self, samples: int) -> None:
        """Count among `samples`."""
        self.samples = samples

    def place(self, rollouts: Rollouts) -> tuple[Placed, dict[str, float]]:
        """The quantiles of the policy's first sample of each prompt; no metrics."""
        assert rollouts.anchor is not None
        return counted(rollouts.policy.learnt_reward_PN[:, 0], rollouts.anchor.learnt_reward_PN[:, : self.samples]), {}
