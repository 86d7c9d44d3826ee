"""The losses of PPO and GRPO, token by token: the clipped ratio to the policy that drew, and estimates of the KL."""

from typing import Literal

import torch
from torch import Tensor


def clipped_surrogate(
    logprobs_ST: Tensor, drawn_ST: Tensor, weight_S1: Tensor, clip: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """min(ratio * weight, clip(ratio, 1 - low, 1 + high) * weight), to be raised (Schulman et al. 2017, eq. 7).

    At a ratio of 1 its gradient is weight * grad log pi, that of REINFORCE.

    Args:
        logprobs_ST: of each token under the live policy; differentiable.
        drawn_ST: under the policy that drew; constants.
        weight_S1: advantage of each completion, times anything positive.
        clip: (low, high); none: ratio * weight, whatever the ratio.

    Returns:
        The value of each token, [S, T], and where the clip binds: those tokens have no gradient.
    """
    ratio_ST = (logprobs_ST - drawn_ST).exp()
    raised_ST = ratio_ST * weight_S1
    if clip is None:
        return raised_ST, torch.zeros_like(ratio_ST, dtype=torch.bool)
    bounded_ST = ratio_ST.detach().clamp(1.0 - clip[0], 1.0 + clip[1]) * weight_S1
    binds_ST = bounded_ST < raised_ST.detach()
    return torch.where(binds_ST, bounded_ST, raised_ST), binds_ST


def kl_estimate(logprobs_ST: Tensor, reference_ST: Tensor, estimator: Literal["k2", "k3"]) -> Tensor:
    """An estimate of each token's KL to the reference from a drawn token (Schulman 2020), [S, T], in nats.

    With x = log pi - log reference: k2 = x^2 / 2 and k3 = exp(-x) + x - 1 (DeepSeekMath, eq. 4). As values k3 is
    unbiased for KL(pi || reference) and k2 nearly so. As losses they are other things: at fixed draws from pi the
    gradient of k2 is x grad log pi, in the mean that of KL(pi || reference), and the gradient of k3 is
    (1 - exp(-x)) grad log pi, in the mean that of KL(reference || pi). Both are of one token's distribution with the
    tokens before it held fixed: that these are drawn from pi too has no part in them.
    """
    log_ratio_ST = logprobs_ST - reference_ST
    if estimator == "k2":
        return 0.5 * log_ratio_ST**2
    return torch.expm1(-log_ratio_ST) + log_ratio_ST
