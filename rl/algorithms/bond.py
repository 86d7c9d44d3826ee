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
    """Return -log 16 where a sample is worse than both anchor samples, else 0 (eq. 17).

    The constant makes the mean equal to the log-quantile at the median: 1/4 * -log 16 = log 1/2.

    Args:
        reward_P: reward of one policy sample per prompt, [P].
        anchor_reward_P2: rewards of two anchor samples per prompt, [P, 2].

    Returns:
        [P], in nats. A tie with an anchor sample counts as not worse (strict inequality).
    """
    worse_P = reward_P < anchor_reward_P2.amin(dim=1)
    return torch.where(worse_P, -math.log(16.0), 0.0)


def scaled_bond_reward(placed: Placed, n: int) -> Tensor:
    """Return (N - 1) r_BOND = (N - 1) log p<= + log B (theorem 1), [P] in nats; log B is omitted if p< is not known.

    The factor N - 1 comes from the gradient of the backward KL (eq. 15); without it the backward term would be too
    small relative to the forward term. The paper drops log B, which is constant over outputs only if there are no ties.
    """
    reward_P = (n - 1) * placed.log_at_most_P
    if placed.log_below_P is not None:
        reward_P = reward_P + log_correction(placed.log_below_P, placed.log_at_most_P, n)
    return reward_P


def backward_return(scaled_reward_P: Tensor, logprob_P: Tensor, anchor_logprob_P: Tensor) -> Tensor:
    """Compute the return of the backward KL, (N - 1) r - (log pi - log pi_anchor), [P] in nats.

    For J-BOND N is 2 and r is r_J (Algorithm 2, step 2).
    """
    return scaled_reward_P - (logprob_P - anchor_logprob_P)


def policy_weights(return_P: Tensor, log_ratio_P: Tensor, beta: float, gamma: float) -> Tensor:
    """Compute the weights of the policy's own samples, beta (R - B) - gamma log(pi / pi_anchor), [P].

    The first term minimises the backward KL, with a leave-one-out baseline B over the prompts of the batch. The second
    minimises the KL to the anchor. Algorithm 2 prints the second term with the opposite sign, which would maximise it.
    """
    # The baseline needs two prompts; without a backward term a batch of one is allowed.
    if beta == 0.0:
        return -gamma * log_ratio_P
    return beta * leave_one_out(return_P) - gamma * log_ratio_P


class Quantile(Protocol):
    """Estimator of the quantile of the policy's samples among the anchor's samples."""

    def place(self, rollouts: Rollouts) -> tuple[Placed, dict[str, float]]:
        """Estimates for one sample of each prompt, and metrics of the estimator."""


class BestOfN(ABC):
    """Base class of J-BOND and BOND: one step of the policy towards Best-of-n of the anchor."""

    needs_anchor_logprob = True
    auxiliary_learner: Learner | None = None

    def __init__(self, config: BondAlgorithm) -> None:
        """Read the weights of the three terms, the sample counts and the anchor's schedule from the configuration."""
        self.n, self.beta, self.gamma = config.n, config.beta, config.gamma
        self.importance_cap = config.importance_cap
        # One policy sample per prompt; all other completions of a prompt come from the anchor.
        self.draws: Mapping[Weights, int] = {"policy": 1, "anchor": config.completions_per_prompt - 1}
        rate = ANCHOR_RATE if config.anchor_rate is None else config.anchor_rate
        self.anchor_rate = {"ema": rate, "periodic": 1.0, "fixed": 0.0}[config.anchor]
        self.anchor_every = (config.anchor_every or ANCHOR_PERIOD) if config.anchor == "periodic" else 1

    @abstractmethod
    def judge(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, float]]:
        """Return (N - 1) r of the policy's sample of each prompt, [P] in nats, and the metrics of r."""

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Weigh the policy's samples by the backward KL and the best of n anchor samples by the forward KL.

        The forward KL is weighted by 1 - beta and imitates the best of the anchor's first n samples per prompt; of
        equal samples, the one sampled first.

        Raises:
            UserError: the batch has one prompt and `beta` is not 0, so the baseline over other prompts is undefined.
        """
        policy, anchor = rollouts.policy, rollouts.anchor
        assert anchor is not None and policy.logprob_PN is not None and policy.anchor_logprob_PN is not None
        logprob_P, anchor_logprob_P = policy.logprob_PN[:, 0], policy.anchor_logprob_PN[:, 0]
        scaled_P, judged = self.judge(rollouts)
        return_P = backward_return(scaled_P, logprob_P, anchor_logprob_P)
        log_ratio_P = logprob_P - anchor_logprob_P
        prompts, draws = anchor.learnt_reward_PN.shape
        if prompts == 1 and self.beta:
            raise UserError(
                "BOND's baseline is the mean return of the other prompts in the batch, and the batch has one prompt: "
                "set `batch` to 2 or more."
            )
        own_P = policy_weights(return_P, log_ratio_P, self.beta, self.gamma) / prompts
        # Only the first n anchor samples form the Best-of-n target: further ones serve the quantile alone, and
        # including them would raise the target to Best-of-k. argmax returns the first of equal rewards.
        best_P = anchor.learnt_reward_PN[:, : self.n].argmax(dim=1)
        best_ids = [anchor.ids[draws * i + int(best)] for i, best in enumerate(best_P)]
        forward_P = torch.full_like(own_P, (1.0 - self.beta) / prompts)
        # The importance correction is for expectations over the policy's samples, so not for the anchor's.
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
    """J-BOND (Algorithm 2): compare the policy's sample with two anchor samples and imitate the better of the two."""

    def judge(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, float]]:
        """Return r_J of each sample, [P] (the factor N - 1 is 1), and its metrics."""
        assert rollouts.anchor is not None
        reward_P, anchor_reward_P2 = rollouts.policy.learnt_reward_PN[:, 0], rollouts.anchor.learnt_reward_PN
        jbond_reward_P = jbond_reward(reward_P, anchor_reward_P2)
        log_quantile = log_quantile_estimate(reward_P, anchor_reward_P2).mean().item()
        return jbond_reward_P, {"jbond_reward": jbond_reward_P.mean().item(), "log_quantile": log_quantile}


class Bond(BestOfN):
    """BOND (Algorithm 1): reward the policy's sample by its counted or learned quantile among the anchor's samples."""

    def __init__(self, config: BondAlgorithm) -> None:
        """Select the quantile estimator."""
        super().__init__(config)
        self.quantile: Quantile = SampledQuantile(config.anchor_samples_compared)
        if config.quantile == "classifier":
            from gemsmith.rl.algorithms.quantile_classifier import QuantileClassifier

            self.quantile = self.auxiliary_learner = QuantileClassifier(config)

    def judge(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, float]]:
        """Return (N - 1) r_BOND of each sample, [P] in nats, and its metrics."""
        placed, metrics = self.quantile.place(rollouts)
        scaled_P = scaled_bond_reward(placed, self.n)
        rewards = {"bond_reward": scaled_P.mean().item() / (self.n - 1)}
        return scaled_P, {"log_quantile": placed.log_at_most_P.mean().item()} | rewards | metrics


def build_bond(config: BondAlgorithm) -> Algorithm:
    """Build J-BOND or BOND, as the configuration's `form` says."""
    return JBond(config) if config.form == "jbond" else Bond(config)


def standing(reward_P: Tensor, anchor_reward_PK: Tensor, n: int) -> dict[str, float]:
    """Compare the policy's samples, [P], with the anchor's K samples of the same prompts, [P, K].

    Returns:
        `quantile`, the mean share of the K samples that are not better; `fraction_worse`, the share of samples that
        are worse than all K; and `win_over_best`, the share that beats the best of the first n, where a tie counts
        half. The expected `win_over_best` is 1 / (n + 1) for the anchor itself and 1/2 for its Best-of-n.
    """
    best_P = anchor_reward_PK[:, :n].amax(dim=1)
    wins_P = (reward_P > best_P).float() + 0.5 * (reward_P == best_P).float()
    return {
        "quantile": (anchor_reward_PK <= reward_P[:, None]).float().mean().item(),
        "fraction_worse": (reward_P < anchor_reward_PK.amin(dim=1)).float().mean().item(),
        "win_over_best": wins_P.mean().item(),
    }
