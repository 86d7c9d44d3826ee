"""J-BOND: distil Best-of-2 of a moving anchor into the policy (Sessa et al. 2024, arXiv 2407.14622, Algorithm 2)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rl.algorithm import Rollouts, Weighted, Weights, corrected, leave_one_out, tie_rate, weighted
from rl.config import BondAlgorithm


def jbond_reward(reward_P: Tensor, anchor_reward_P2: Tensor) -> Tensor:
    """-log 16 where a sample is worse than both anchor samples, else 0; its mean is log p at the median (eq. 17).

    Args:
        reward_P: reward of one policy sample per prompt, [P].
        anchor_reward_P2: rewards of two anchor samples per prompt, [P, 2].

    Returns:
        [P], in nats. A tie with an anchor sample counts as not worse (strict inequality).
    """
    worse_P = reward_P < anchor_reward_P2.amin(dim=1)
    return torch.where(worse_P, -math.log(16.0), 0.0)


def backward_return(jbond_reward_P: Tensor, logprob_P: Tensor, anchor_logprob_P: Tensor) -> Tensor:
    """Return of the backward KL: r_J - (log pi - log pi_anchor), beta_BOND = 1 for Best-of-2 (Algorithm 2, step 2)."""
    return jbond_reward_P - (logprob_P - anchor_logprob_P)


def policy_weights(return_P: Tensor, log_ratio_P: Tensor, beta: float, gamma: float) -> Tensor:
    """Factor of log pi(y) for the policy's own samples: beta (R - B) - gamma log(pi / pi_anchor), per prompt.

    The first term is the backward KL with a leave-one-out baseline over the prompts of the batch. The second descends
    the KL to the anchor; Algorithm 2 prints its sign the wrong way round (descending the printed term raises that KL).
    """
    return beta * leave_one_out(return_P) - gamma * log_ratio_P


class JBond:
    """One J-BOND step: (1 - beta) forward KL on the anchor's best sample, beta backward KL on the policy's sample."""

    needs_anchor_logprob = True
    needs_initial_logprob = False

    def __init__(self, config: BondAlgorithm) -> None:
        """Take the weights of the three terms from the recipe."""
        self.beta, self.gamma, self.anchor_rate = config.beta, config.gamma, config.anchor_rate
        self.importance_cap = config.importance_cap
        self.draws: Mapping[Weights, int] = {"policy": 1, "anchor": 2}

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Weigh the policy's sample and the better of the anchor's two for each prompt; the first wins a tie."""
        policy, anchor = rollouts.policy, rollouts.anchor
        assert anchor is not None and policy.logprob_PN is not None and policy.anchor_logprob_PN is not None
        reward_P, logprob_P = policy.reward_PN[:, 0], policy.logprob_PN[:, 0]
        anchor_logprob_P = policy.anchor_logprob_PN[:, 0]
        jbond_reward_P = jbond_reward(reward_P, anchor.reward_PN)
        return_P = backward_return(jbond_reward_P, logprob_P, anchor_logprob_P)
        prompts = len(rollouts.prompts)
        own_P = policy_weights(return_P, logprob_P - anchor_logprob_P, self.beta, self.gamma) / prompts
        best_P = anchor.reward_PN.argmax(dim=1)
        best_ids = [anchor.ids[2 * i + int(best)] for i, best in enumerate(best_P)]
        forward_P = torch.full_like(own_P, (1.0 - self.beta) / prompts)
        own_P1, correction = corrected(own_P[:, None], policy, self.importance_cap)
        sequences = weighted(rollouts.prompts, policy.ids, own_P1)
        sequences += weighted(rollouts.prompts, best_ids, forward_P[:, None])
        metrics = {
            "jbond_reward": jbond_reward_P.mean().item(),
            "fraction_worse": (jbond_reward_P < 0).float().mean().item(),
            "kl_to_anchor": (logprob_P - anchor_logprob_P).mean().item(),
            "anchor_reward": anchor.reward_PN.mean().item(),
            "tie_rate": tie_rate(torch.cat([policy.reward_PN, anchor.reward_PN], dim=1)),
        }
        return sequences, metrics | correction
