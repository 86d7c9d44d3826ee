"""Best-of-N distributions exactly, where outputs can be enumerated (BOND: Sessa et al. 2024, arXiv 2407.14622).

V counts the outputs of one prompt; leading dimensions are free. Sums are over all outputs, in logarithms: use float64
where tails matter. Equal rewards are handled: the law is that of Best-of-N where a tie is broken by a coin or by the
first draw. A fixed order among tied outputs is another law: refine the rewards into that order first.
"""

import math

import torch
from torch import Tensor

from gemsmith.rl.algorithms.best_of_n import log_correction


def log_quantiles(logprob_V: Tensor, reward_V: Tensor) -> tuple[Tensor, Tensor]:
    """log p<(y) and log p<=(y): the chances that a sample of the reference has a lower reward, or one not higher.

    Args:
        logprob_V: log-probabilities of the reference, normalised, [..., V].
        reward_V: reward of each output, [..., V].

    Returns:
        Two tensors [..., V], in nats; log p< is -inf for the worst outputs.
    """
    sorted_V, order_V = reward_V.sort(dim=-1)
    total_V = logprob_V.gather(-1, order_V).logcumsumexp(dim=-1)
    total_V = torch.cat([torch.full_like(total_V[..., :1], -math.inf), total_V], dim=-1)
    sorted_V, reward_V = sorted_V.contiguous(), reward_V.contiguous()
    below_V = torch.searchsorted(sorted_V, reward_V, side="left")
    at_most_V = torch.searchsorted(sorted_V, reward_V, side="right")
    return total_V.gather(-1, below_V), total_V.gather(-1, at_most_V)


def best_of_n_logprob(logprob_V: Tensor, reward_V: Tensor, n: int) -> Tensor:
    """log pi_BoN(y) = log pi_ref(y) + (n - 1) log p<=(y) + log B(y) (theorem 1), [..., V]."""
    log_below_V, log_at_most_V = log_quantiles(logprob_V, reward_V)
    return logprob_V + (n - 1) * log_at_most_V + log_correction(log_below_V, log_at_most_V, n)


def bond_reward(logprob_V: Tensor, reward_V: Tensor, n: int, correction: bool = True) -> Tensor:
    """r_BOND(y) = log p<=(y) + log B(y) / (n - 1), whose optimum at KL weight 1 / (n - 1) is Best-of-n (equation 8).

    Args:
        logprob_V: log-probabilities of the reference, [..., V].
        reward_V: reward of each output, [..., V].
        n: at least 2.
        correction: whether to keep the second term, which the paper drops in practice. It is at most log n / (n - 1).

    Returns:
        [..., V], in nats. Section 4.2 of the paper writes p<= where its logarithm is meant.
    """
    log_below_V, log_at_most_V = log_quantiles(logprob_V, reward_V)
    if not correction:
        return log_at_most_V
    return log_at_most_V + log_correction(log_below_V, log_at_most_V, n) / (n - 1)


def kl(logprob_V: Tensor, other_V: Tensor) -> Tensor:
    """KL(p || q) of two laws given by log-probabilities [..., V]; outputs where p is 0 count nothing, [...]."""
    terms_V = logprob_V.exp() * (logprob_V - other_V)
    return torch.where(logprob_V == -math.inf, 0.0, terms_V).sum(dim=-1)


def jeffreys(logprob_V: Tensor, target_logprob_V: Tensor, beta: float) -> Tensor:
    """(1 - beta) KL(target || policy) + beta KL(policy || target) (equation 10): beta weighs the backward KL, [...]."""
    return (1.0 - beta) * kl(target_logprob_V, logprob_V) + beta * kl(logprob_V, target_logprob_V)


def forward_loss(logprob_V: Tensor, target_logprob_V: Tensor) -> Tensor:
    """Its gradient is that of KL(Best-of-n || policy): -E of grad log pi over Best-of-n (equation 13), [...]."""
    return -(target_logprob_V.exp() * logprob_V).sum(dim=-1)


def backward_loss(logprob_V: Tensor, reference_logprob_V: Tensor, bond_reward_V: Tensor, n: int) -> Tensor:
    """Its gradient is that of KL(policy || Best-of-n), by the policy gradient of r_BOND (equation 15).

    -(n - 1) E of grad log pi (r_BOND - (log pi - log pi_ref) / (n - 1)) over the policy. The factor n - 1 keeps its
    scale beside the forward term.

    Args:
        logprob_V: the policy, with a gradient, [..., V].
        reference_logprob_V: what Best-of-n draws from, [..., V].
        bond_reward_V: r_BOND of each output, [..., V].
        n: of Best-of-n, at least 2.

    Returns:
        [...]; only its gradient means something.
    """
    held_V = logprob_V.detach()
    return_V = bond_reward_V - (held_V - reference_logprob_V) / (n - 1)
    return -(n - 1) * (held_V.exp() * return_V * logprob_V).sum(dim=-1)
