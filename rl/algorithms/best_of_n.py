"""What BOND takes from the law of Best-of-N: its correction for ties, estimated quantiles and the bound of its KL.

Source: Sessa et al. 2024, arXiv 2407.14622. The law itself, where outputs can be enumerated, is in
`benchmarks/fidelity/toys/best_of_n_law.py`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Zeros = Literal["half", "one", "floor"]


def log_correction(log_below_V: Tensor, log_at_most_V: Tensor, n: int) -> Tensor:
    """log B of theorem 1, B = sum over i of (p< / p<=)^(i - 1) for i from 1 to n; between 0 and log n, [..., V]."""
    ratio_V1 = (log_below_V - log_at_most_V).exp()[..., None]
    return (ratio_V1 ** torch.arange(n, device=ratio_V1.device)).sum(dim=-1).log()


def log_quantile_estimate(reward_P: Tensor, anchor_reward_PK: Tensor, zeros: Zeros = "half") -> Tensor:
    """log p<= from K samples of the reference for the same prompt (section 4.2): c of them are not better.

    The paper does not say what to do where c is 0, which happens in 44% of cases at K = 16 and p = 0.05. "half" takes
    log((c + 1/2) / (K + 1/2)), "one" takes log((c + 1) / (K + 1)), "floor" takes log max(c / K, 1 / 2K).

    Args:
        reward_P: rewards to be placed, [P].
        anchor_reward_PK: rewards of the reference's samples, [P, K].
        zeros: how to keep the logarithm finite.

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
    """log n - (n - 1) / n: the most that KL(Best-of-n || reference) can be, met where single outputs weigh nothing."""
    return math.log(n) - (n - 1) / n
