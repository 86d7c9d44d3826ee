"""REINFORCE with a baseline from the samples of a prompt: RLOO (Ahmadian et al. 2024), and GRPO (Shao et al. 2024)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from gemsmith.rl.algorithms.algorithm import (
    Algorithm,
    Draw,
    Learner,
    Rollouts,
    Weighted,
    Weights,
    learnt_metric,
    leave_one_out,
    tie_rate,
    truncate_importance,
    weighted,
)
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.algorithms.surrogate import clipped_surrogate, kl_estimate
from gemsmith.rl.algorithms.turns import turn_weights


def build_reinforce(config: ReinforceAlgorithm) -> Algorithm:
    """The algorithm of a configuration, the linear one where its loss is linear in the log-probabilities."""
    linear = config.updates == 1 and (config.kl_in == "reward" or config.kl == 0)
    return Reinforce(config) if linear else TokenReinforce(config)


def penalised_reward(reward_PN: Tensor, logprob_PN: Tensor, reference_logprob_PN: Tensor, kl: float) -> Tensor:
    """r - kl (log pi - log pi_reference), [P, N]: its mean is the reward minus kl times KL(pi || reference)."""
    return reward_PN - kl * (logprob_PN - reference_logprob_PN)


def advantages(
    reward_PN: Tensor, baseline: Literal["leave_one_out", "group_mean"], scale: Literal["none", "std"]
) -> Tensor:
    """How much better each completion is than its prompt's, [P, N].

    leave_one_out is unbiased (Kool et al. 2019), and N / (N - 1) times group_mean. Divided by the standard deviation of
    the N rewards (DeepSeekMath, section 4.1.2; over N, not N - 1) advantages weigh prompts by difficulty: where a
    share p of right or wrong answers is right, by 1 / sqrt(p (1 - p)). Rewards that are all equal give 0.
    """
    mean_P1 = reward_PN.mean(dim=1, keepdim=True)
    value_PN = leave_one_out(reward_PN) if baseline == "leave_one_out" else reward_PN - mean_P1
    if scale == "none":
        return value_PN
    std_P1 = reward_PN.std(dim=1, keepdim=True, correction=0)
    return torch.where(all_equal(reward_PN)[:, None], 0.0, value_PN / std_P1)


def all_equal(reward_PN: Tensor) -> Tensor:
    """Which prompts have equal rewards for all their completions, [P]."""
    return reward_PN.amin(dim=1) == reward_PN.amax(dim=1)


def length_factor(ids: Sequence[Sequence[int]], norm: Literal["sequence", "batch"]) -> Tensor:
    """One over each completion's length, or over the mean of their lengths, [S]."""
    length_S = torch.tensor([float(len(completion)) for completion in ids])
    return 1.0 / (length_S if norm == "sequence" else length_S.mean().expand_as(length_S))


def finished_reward(policy: Draw, penalty: float) -> tuple[Tensor, dict[str, float]]:
    """Rewards, [P, N], without the penalty of completions that were cut off (Lambert et al. 2024); and metrics."""
    if not penalty:
        return policy.learnt_reward_PN, {}
    assert policy.finished_PN is not None
    reward_PN = torch.where(policy.finished_PN, policy.learnt_reward_PN, policy.learnt_reward_PN - penalty)
    taken = (policy.learnt_reward_PN - reward_PN).mean().item()
    return reward_PN, {"unfinished_penalty": taken, **learnt_metric(reward_PN)}


def completion_weights(
    rollouts: Rollouts, reference_PN: Tensor, config: ReinforceAlgorithm
) -> tuple[Tensor, dict[str, float]]:
    """The weight of every completion, [P, N]: its advantage over the number of completions; and metrics.

    `zero_advantage` is the share of prompts whose rewards are all equal.
    """
    policy = rollouts.policy
    assert policy.logprob_PN is not None
    reward_PN, metrics = finished_reward(policy, config.unfinished_penalty)
    metrics["tie_rate"] = tie_rate(policy.learnt_reward_PN)
    metrics["zero_advantage"] = all_equal(reward_PN).float().mean().item()
    if config.kl_in == "reward":
        reward_PN = penalised_reward(reward_PN, policy.logprob_PN, reference_PN, config.kl)
    return advantages(reward_PN, config.baseline, config.scale) / reward_PN.numel(), metrics


class Reinforce:
    """Each completion, or turn, is weighed by its advantage; the KL is in the reward."""

    anchor_every = 1
    auxiliary_learner: Learner | None = None

    def __init__(self, config: ReinforceAlgorithm) -> None:
        """Take samples, advantages, KL and reference from the recipe."""
        self.config, self.to_anchor = config, config.kl_to == "anchor"
        self.draws: Mapping[Weights, int] = {"policy": config.samples}
        self.anchor_rate = config.anchor_rate if self.to_anchor else 0.0
        self.needs_anchor_logprob = self.to_anchor

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Weigh every completion of the policy; metrics name the reference that the KL was taken to."""
        policy = rollouts.policy
        if not policy.ids:  # of episodes, none could be judged
            return [], {}
        reference_PN = policy.anchor_logprob_PN if self.to_anchor else policy.initial_logprob_PN
        assert policy.logprob_PN is not None and reference_PN is not None
        weights = turn_weights if self.config.turns > 1 else completion_weights
        weight_PN, metrics = weights(rollouts, reference_PN, self.config)
        if self.to_anchor:
            metrics["kl_to_anchor"] = (policy.logprob_PN - reference_PN).mean().item()
        weight_PN, correction = self._corrected(weight_PN, policy)
        return self._sequences(rollouts, weight_PN), metrics | correction

    def _corrected(self, weight_PN: Tensor, policy: Draw) -> tuple[Tensor, dict[str, float]]:
        """Weights with the sampler's mismatch corrected for, and over lengths."""
        weight_PN, correction = truncate_importance(weight_PN, policy, self.config.importance_cap)
        if self.config.length_norm != "none":
            weight_PN = weight_PN * length_factor(policy.ids, self.config.length_norm).view_as(weight_PN)
        return weight_PN, correction

    def _sequences(self, rollouts: Rollouts, weight_PN: Tensor) -> list[Weighted]:
        return weighted(rollouts.prompts, rollouts.policy.ids, weight_PN)


class TokenReinforce(Reinforce):
    """The same weights on the clipped ratio to the policy that drew, and the KL in the loss (PPO, GRPO)."""

    def _sequences(self, rollouts: Rollouts, weight_PN: Tensor) -> list[Weighted]:
        """Every completion that has a weight or a KL, with what its tokens are held against."""
        policy, samples = rollouts.policy, weight_PN.shape[1]
        kl_PN = torch.zeros_like(weight_PN)
        reference = None
        if self.config.kl_in == "loss" and self.config.kl:
            reference = policy.anchor_tokens if self.to_anchor else policy.initial_tokens
            kl_PN, _ = self._corrected(torch.full_like(weight_PN, self.config.kl / weight_PN.numel()), policy)
        drawn = policy.tokens if self.config.updates > 1 else None
        rows = zip(policy.ids, weight_PN.flatten().tolist(), kl_PN.flatten().tolist(), strict=True)
        return [
            Weighted(
                rollouts.prompts[i // samples],
                completion,
                weight,
                kl,
                None if drawn is None else drawn[i],
                None if reference is None else reference[i],
            )
            for i, (completion, weight, kl) in enumerate(rows)
            if weight != 0.0 or kl != 0.0
        ]

    def token_loss(self, logprobs_ST: Tensor, sequences: Sequence[Weighted]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over tokens of kl * estimate - clipped surrogate; metrics of the ratio where several steps share a draw.

        Metrics: `ratio` to the policy that drew, `clipped`, where the bound binds, `kl_to_drawing`, an unbiased
        estimate of KL(that || live) in nats a token, and `kl_loss`, the estimate that is lowered.
        """
        live_ST = logprobs_ST.detach()
        lengths_S1 = torch.tensor([[len(sequence.completion)] for sequence in sequences], device=live_ST.device)
        mask_ST = torch.arange(live_ST.shape[1], device=live_ST.device) < lengths_S1
        drawn_ST = _padded([sequence.drawn for sequence in sequences], live_ST)
        weight_S1 = torch.tensor([[sequence.weight] for sequence in sequences], device=live_ST.device)
        clip = None if self.config.clip is None else (self.config.clip[0], self.config.clip[1])
        value_ST, binds_ST = clipped_surrogate(logprobs_ST, drawn_ST, weight_S1, clip)
        loss_ST = -value_ST
        metrics: dict[str, Tensor] = {}
        if any(sequence.drawn is not None for sequence in sequences):
            told_ST = mask_ST & torch.tensor([[s.drawn is not None] for s in sequences], device=live_ST.device)
            log_ratio_M = (live_ST - drawn_ST)[told_ST]
            metrics = {"ratio": log_ratio_M.exp(), "clipped": binds_ST[told_ST].float()}
            metrics["kl_to_drawing"] = torch.expm1(log_ratio_M) - log_ratio_M
        if any(sequence.reference is not None for sequence in sequences):
            reference_ST = _padded([sequence.reference for sequence in sequences], live_ST)
            kl_S1 = torch.tensor([[sequence.kl] for sequence in sequences], device=live_ST.device)
            estimator: Literal["k2", "k3"] = "k2" if self.config.kl_estimator == "k2" else "k3"
            estimate_ST = kl_estimate(logprobs_ST, reference_ST, estimator)
            loss_ST = loss_ST + kl_S1 * estimate_ST
            metrics["kl_loss"] = estimate_ST.detach()[mask_ST & (kl_S1 != 0)]
        return loss_ST[mask_ST].sum(), metrics


def _padded(tokens: Sequence[Tensor | None], live_ST: Tensor) -> Tensor:
    """Rows of log-probabilities as one tensor, [S, T]; where there is none, the live ones."""
    padded_ST = live_ST.clone()
    for row_T, known in zip(padded_ST, tokens, strict=True):
        if known is not None:
            row_T[: len(known)] = known
    return padded_ST
