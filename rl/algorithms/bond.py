"""BOND: distil Best-of-N of an anchor into the policy (Sessa et al. 2024, arXiv 2407.14622): Algorithms 1 and 2."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from gemsmith.contracts.errors import UserError
from gemsmith.rl.algorithms.algorithm import (
    Algorithm,
    Learner,
    Rollouts,
    Weighted,
    Weights,
    leave_one_out,
    tie_rate,
    truncate_importance,
    weighted,
)
from gemsmith.rl.algorithms.best_of_n import log_correction, log_quantile_estimate
from gemsmith.rl.algorithms.bond_config import ANCHOR_PERIOD, ANCHOR_RATE, BondAlgorithm
from gemsmith.rl.algorithms.quantile import Placed, SampledQuantile


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


def scaled_bond_reward(placed: Placed, n: int) -> Tensor:
    """(N - 1) r_BOND = (N - 1) log p<= + log B (theorem 1), [P] in nats; without log B where p< is not known.

    The factor N - 1 is that of the backward KL's gradient (eq. 15), without which the term would shrink against the
    forward one. The paper drops log B, which is the same for all outputs where there are no ties; with ties it is not.
    """
    reward_P = (n - 1) * placed.log_at_most_P
    if placed.log_below_P is not None:
        reward_P = reward_P + log_correction(placed.log_below_P, placed.log_at_most_P, n)
    return reward_P


def backward_return(scaled_reward_P: Tensor, logprob_P: Tensor, anchor_logprob_P: Tensor) -> Tensor:
    """Return of the backward KL: (N - 1) r - (log pi - log pi_anchor); r_J for Best-of-2 (Algorithm 2, step 2)."""
    return scaled_reward_P - (logprob_P - anchor_logprob_P)


def policy_weights(return_P: Tensor, log_ratio_P: Tensor, beta: float, gamma: float) -> Tensor:
    """Factor of log pi(y) for the policy's own samples: beta (R - B) - gamma log(pi / pi_anchor), per prompt.

    The first term is the backward KL with a leave-one-out baseline over the prompts of the batch. The second descends
    the KL to the anchor; Algorithm 2 prints its sign the wrong way round (descending the printed term raises that KL).
    """
    if beta == 0.0:
        return -gamma * log_ratio_P
    return beta * leave_one_out(return_P) - gamma * log_ratio_P


class Quantile(Protocol):
    """Says where the policy's samples stand among the anchor's."""

    def place(self, rollouts: Rollouts) -> tuple[Placed, dict[str, float]]:
        """Estimates for one sample of each prompt, and metrics of the estimator."""


class BestOfN(ABC):
    """One step towards Best-of-n of the anchor: what J-BOND and BOND have in common."""

    needs_anchor_logprob = True
    auxiliary_learner: Learner | None = None

    def __init__(self, config: BondAlgorithm) -> None:
        """Take the weights of the three terms, the draws and the anchor's pace from the recipe."""
        self.n, self.beta, self.gamma = config.n, config.beta, config.gamma
        self.importance_cap = config.importance_cap
        self.draws: Mapping[Weights, int] = {"policy": 1, "anchor": config.completions_per_prompt - 1}
        rate = ANCHOR_RATE if config.anchor_rate is None else config.anchor_rate
        self.anchor_rate = {"ema": rate, "periodic": 1.0, "fixed": 0.0}[config.anchor]
        self.anchor_every = (config.anchor_every or ANCHOR_PERIOD) if config.anchor == "periodic" else 1

    @abstractmethod
    def judge(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, float]]:
        """(N - 1) r of the policy's sample of each prompt, [P] in nats, and metrics that belong to r."""

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """(1 - beta) forward KL on the best of the anchor's first n, the first drawn of equals; beta backward KL.

        Raises:
            UserError: there is one prompt, and the backward term's baseline is of the others.
        """
        policy, anchor = rollouts.policy, rollouts.anchor
        assert anchor is not None and policy.logprob_PN is not None and policy.anchor_logprob_PN is not None
        logprob_P, anchor_logprob_P = policy.logprob_PN[:, 0], policy.anchor_logprob_PN[:, 0]
        scaled_P, judged = self.judge(rollouts)
        return_P = backward_return(scaled_P, logprob_P, anchor_logprob_P)
        log_ratio_P = logprob_P - anchor_logprob_P
        prompts, draws = anchor.learnt_reward_PN.shape
        if prompts == 1 and self.beta:
            raise UserError("BOND's baseline is the mean return of the batch's other prompts: set batch above 1.")
        own_P = policy_weights(return_P, log_ratio_P, self.beta, self.gamma) / prompts
        best_P = anchor.learnt_reward_PN[:, : self.n].argmax(dim=1)
        best_ids = [anchor.ids[draws * i + int(best)] for i, best in enumerate(best_P)]
        forward_P = torch.full_like(own_P, (1.0 - self.beta) / prompts)
        own_P1, correction = truncate_importance(own_P[:, None], policy, self.importance_cap)
        sequences = weighted(rollouts.prompts, policy.ids, own_P1)
        sequences += weighted(rollouts.prompts, best_ids, forward_P[:, None])
        metrics = standing(policy.learnt_reward_PN[:, 0], anchor.learnt_reward_PN, self.n) | judged
        metrics |= {
            "return/quantile": scaled_P.mean().item(),
            "return/quantile_std": scaled_P.std(correction=0).item(),
            "return/log_ratio": -log_ratio_P.mean().item(),
            "return/log_ratio_std": log_ratio_P.std(correction=0).item(),
            "kl_to_anchor": log_ratio_P.mean().item(),
            "anchor_reward": anchor.learnt_reward_PN.mean().item(),
            "tie_rate": tie_rate(torch.cat([policy.learnt_reward_PN, anchor.learnt_reward_PN], dim=1)),
        }
        return sequences, metrics | correction


class JBond(BestOfN):
    """Algorithm 2: the policy's sample is compared with the two of the anchor of which the better is imitated."""

    def judge(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, float]]:
        """r_J of each sample; N - 1 is 1."""
        assert rollouts.anchor is not None
        reward_P, anchor_reward_P2 = rollouts.policy.learnt_reward_PN[:, 0], rollouts.anchor.learnt_reward_PN
        jbond_reward_P = jbond_reward(reward_P, anchor_reward_P2)
        log_quantile = log_quantile_estimate(reward_P, anchor_reward_P2).mean().item()
        return jbond_reward_P, {"jbond_reward": jbond_reward_P.mean().item(), "log_quantile": log_quantile}


class Bond(BestOfN):
    """Algorithm 1: the policy's sample gets its quantile among the anchor's samples, counted or learnt."""

    def __init__(self, config: BondAlgorithm) -> None:
        """Choose what tells the quantile."""
        super().__init__(config)
        self.quantile: Quantile = SampledQuantile(config.anchor_samples_compared)
        if config.quantile == "classifier":
            from gemsmith.rl.algorithms.quantile_classifier import QuantileClassifier

            self.quantile = self.auxiliary_learner = QuantileClassifier(config)

    def judge(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, float]]:
        """(N - 1) r_BOND of each sample."""
        placed, metrics = self.quantile.place(rollouts)
        scaled_P = scaled_bond_reward(placed, self.n)
        rewards = {"bond_reward": scaled_P.mean().item() / (self.n - 1)}
        return scaled_P, {"log_quantile": placed.log_at_most_P.mean().item()} | rewards | metrics


def build_bond(config: BondAlgorithm) -> Algorithm:
    """The algorithm of the configuration's `form`."""
    return JBond(config) if config.form == "jbond" else Bond(config)


def standing(reward_P: Tensor, anchor_reward_PK: Tensor, n: int) -> dict[str, float]:
    """How the policy's samples compare with the anchor's K of the same prompts.

    `quantile` is the mean share of the K that are not better, `fraction_worse` the share of samples that are worse than
    all K. `win_over_best` is the share that beats the best of the first n, a tie counting half: 1 / (n + 1) for the
    anchor itself and 1/2 for its Best-of-n, whatever the ties.
    """
    best_P = anchor_reward_PK[:, :n].amax(dim=1)
    wins_P = (reward_P > best_P).float() + 0.5 * (reward_P == best_P).float()
    return {
        "quantile": (anchor_reward_PK <= reward_P[:, None]).float().mean().item(),
        "fraction_worse": (reward_P < anchor_reward_PK.amin(dim=1)).float().mean().item(),
        "win_over_best": wins_P.mean().item(),
    }
