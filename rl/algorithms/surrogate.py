"""Per-token losses of PPO and GRPO: the clipped surrogate and estimates of the KL."""

from typing import Literal

import torch
from torch import Tensor


def clipped_surrogate(
    logprobs_ST: Tensor, drawn_ST: Tensor, weight_S1: Tensor, clip: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """Compute min(ratio * weight, clip(ratio, 1 - low, 1 + high) * weight), to be maximised (Schulman 2017, eq. 7).

    At a ratio of 1 the gradient is weight * grad log pi, as in REINFORCE.

    Args:
        logprobs_ST: log-probability of each token under the live policy, differentiable.
        drawn_ST: log-probability of each token under the policy that sampled it, constant.
        weight_S1: advantage of each completion, times any positive factor.
        clip: (low, high); None: ratio * weight without a bound.

    Returns:
        The value of each token, [S, T], and a mask of the tokens whose ratio is clipped, [S, T]; they have no gradient.
    """
    ratio_ST = (logprobs_ST - drawn_ST).exp()
    raised_ST = ratio_ST * weight_S1
    if clip is None:
        return raised_ST, torch.zeros_like(ratio_ST, dtype=torch.bool)
    # Detached, because the clipped value is a constant exactly where it is the smaller of the two.
    bounded_ST = ratio_ST.detach().clamp(1.0 - clip[0], 1.0 + clip[1]) * weight_S1
    binds_ST = bounded_ST < raised_ST.detach()
    return torch.where(binds_ST, bounded_ST, raised_ST), binds_ST


def kl_estimate(logprobs_ST: Tensor, reference_ST: Tensor, estimator: Literal["k2", "k3"]) -> Tensor:
    """Estimate each token's KL to the reference from the sampled token (Schulman 2020), [S, T], in nats.

    With x = log pi - log reference, k2 = x^2 / 2 and k3 = exp(-x) + x - 1 (DeepSeekMath, eq. 4). As values, k3 is an
    unbiased estimate of KL(pi || reference) and k2 nearly is. Their gradients differ: for fixed samples from pi, the
    gradient of k2 is x grad log pi, in expectation that of KL(pi || reference); the gradient of k3 is
    (1 - exp(-x)) grad log pi, in expectation that of KL(reference || pi). Both treat the preceding tokens as fixed and
    ignore that these were sampled from pi too.
    """
    log_ratio_ST = logprobs_ST - reference_ST
    if estimator == "k2":
        return 0.5 * log_ratio_ST**2
    return torch.expm1(-log_ratio_ST) + log_ratio_ST
