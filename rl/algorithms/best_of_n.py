"""Functions of the Best-of-N distribution that BOND uses: tie correction, estimated quantiles, and KL bound.

Source: Sessa et al. 2024, arXiv 2407.14622. The exact distribution for enumerable outputs is in
`benchmarks/fidelity/toys/best_of_n_law.py`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Zeros = Literal["half", "one", "floor"]


def log_correction(log_below_V: Tensor, log_at_most_V: Tensor, n: int) -> Tensor:
    """Return log B of theorem 1, with B = sum of (p< / p<=)^(i - 1) for i = 1 to n; [..., V], between 0 and log n.

    Args:
        log_below_V: log p<, the probability of a strictly lower reward, [..., V].
        log_at_most_V: log p<=, the probability of a reward that is not higher, [..., V].
        n: N of Best-of-N.
    """
    # If p< is 0 (nothing is worse) the ratio is 0, and 0 ** 0 = 1 makes B = 1. Without ties the ratio is 1 and B = n.
    ratio_V1 = (log_below_V - log_at_most_V).exp()[..., None]
    return (ratio_V1 ** torch.arange(n, device=ratio_V1.device)).sum(dim=-1).log()


def log_quantile_estimate(reward_P: Tensor, anchor_reward_PK: Tensor, zeros: Zeros = "half") -> Tensor:
    """Estimate log p<= from K samples of the reference for the same prompt, c of which are not better (section 4.2).

    The paper does not define the estimate at c = 0, which happens in 44% of cases at K = 16 and p = 0.05. "half" uses
    log((c + 1/2) / (K + 1/2)), "one" uses log((c + 1) / (K + 1)), "floor" uses log max(c / K, 1 / 2K).

    Args:
        reward_P: rewards whose quantiles are estimated, [P].
        anchor_reward_PK: rewards of the reference's samples, [P, K].
        zeros: method that keeps the logarithm finite at c = 0.

    Returns:
        [P], in nats, at most 0.
    """
    samples = anchor_reward_PK.shape[1]
    not_better_P = (anchor_reward_PK <= reward_P[:, None]).sum(dim=1).to(anchor_reward_PK.dtype)
    if zeros == "floor":
        return (not_better_P / samples).clamp(min=0.5 / samples).log()
    added = {"half": 0.5, "one": 1.0}[zeros]
    return ((not_better_P + added) / (samples + added)).log()


def kl_bound(n: int) -> float:
    """Return log n - (n - 1) / n, the upper bound of KL(Best-of-n || reference), in nats.

    The bound is attained in the limit where every single output has probability 0.
    """
    return math.log(n) - (n - 1) / n
