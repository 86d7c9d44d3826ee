"""REINFORCE with a per-prompt baseline: RLOO (Ahmadian et al. 2024) and GRPO (Shao et al. 2024)."""

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
    """Build the algorithm; the cheaper `Reinforce` if the loss is linear in the log-probabilities."""
    # With one update per rollout the ratio is 1 and the clip never binds, so only a KL in the loss is not linear.
    linear = config.updates == 1 and (config.kl_in == "reward" or config.kl == 0)
    return Reinforce(config) if linear else TokenReinforce(config)


STD_EPSILON = 1e-4
"""Added to the standard deviation that advantages are divided by (TRL's GRPOTrainer), in units of the reward."""


def penalised_reward(reward_PN: Tensor, logprob_PN: Tensor, reference_logprob_PN: Tensor, kl: float) -> Tensor:
    """Compute r - kl (log pi - log pi_reference), [P, N], whose mean is the reward minus kl * KL(pi || reference)."""
    return reward_PN - kl * (logprob_PN - reference_logprob_PN)


def advantages(
    reward_PN: Tensor, baseline: Literal["leave_one_out", "group_mean"], scale: Literal["none", "std"]
) -> Tensor:
    """Compute the advantage of each completion over its prompt's completions, [P, N].

    leave_one_out is unbiased (Kool et al. 2019) and equals N / (N - 1) times group_mean. Division by the standard
    deviation of the N rewards (DeepSeekMath, section 4.1.2; population form, over N) weighs prompts by difficulty: for
    binary rewards with a share p of correct answers, by 1 / sqrt(p (1 - p)). If all rewards of a prompt are equal, its
    advantages are 0. `STD_EPSILON` is added to the standard deviation, as in TRL: without it, rewards that differ by
    1e-6 would have advantages as large as those of right and wrong answers.
    """
    mean_P1 = reward_PN.mean(dim=1, keepdim=True)
    value_PN = leave_one_out(reward_PN) if baseline == "leave_one_out" else reward_PN - mean_P1
    if scale == "none":
        return value_PN
    # Rounding can leave equal rewards a tiny mean difference; testing for equality gives exactly 0.
    std_P1 = reward_PN.std(dim=1, keepdim=True, correction=0)
    return torch.where(all_equal(reward_PN)[:, None], 0.0, value_PN / (std_P1 + STD_EPSILON))


def all_equal(reward_PN: Tensor) -> Tensor:
    """Return a mask of the prompts whose completions all have equal rewards, [P]."""
    return reward_PN.amin(dim=1) == reward_PN.amax(dim=1)


def length_factor(ids: Sequence[Sequence[int]], norm: Literal["sequence", "batch"]) -> Tensor:
    """Return one over each completion's length ("sequence") or over the mean length ("batch"), [S], in tokens."""
    length_S = torch.tensor([float(len(completion)) for completion in ids])
    return 1.0 / (length_S if norm == "sequence" else length_S.mean().expand_as(length_S))


def finished_reward(policy: Draw, penalty: float) -> tuple[Tensor, dict[str, float]]:
    """Subtract `penalty` from the rewards of cut-off completions (Lambert et al. 2024); return them and metrics."""
    if not penalty:
        return policy.learnt_reward_PN, {}
    assert policy.finished_PN is not None
    reward_PN = torch.where(policy.finished_PN, policy.learnt_reward_PN, policy.learnt_reward_PN - penalty)
    taken = (policy.learnt_reward_PN - reward_PN).mean().item()
    return reward_PN, {"unfinished_penalty": taken, **learnt_metric(reward_PN)}


def completion_weights(
    rollouts: Rollouts, reference_PN: Tensor, config: ReinforceAlgorithm
) -> tuple[Tensor, dict[str, float]]:
    """Return the weight of every completion, [P, N], its advantage divided by P * N, and metrics.

    `zero_advantage` is the share of prompts whose rewards are all equal, before the KL penalty.
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
    """REINFORCE with a linear loss: completions or turns are weighted by their advantage, with the KL in the reward."""

    anchor_every = 1
    auxiliary_learner: Learner | None = None

    def __init__(self, config: ReinforceAlgorithm) -> None:
        """Read the sample count, the KL's reference and the anchor's rate from the configuration."""
        self.config, self.to_anchor = config, config.kl_to == "anchor"
        self.draws: Mapping[Weights, int] = {"policy": config.samples}
        self.anchor_rate = config.anchor_rate if self.to_anchor else 0.0
        self.needs_anchor_logprob = self.to_anchor

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Weigh every completion of the policy; add the metric `kl_to_anchor` if the anchor is the KL's reference."""
        policy = rollouts.policy
        if not policy.ids:  # this part's episodes were all left out
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
        """Apply the importance correction and the length normalisation to the weights, [P, N]."""
        weight_PN, correction = truncate_importance(weight_PN, policy, self.config.importance_cap)
        if self.config.length_norm != "none":
            weight_PN = weight_PN * length_factor(policy.ids, self.config.length_norm).view_as(weight_PN)
        return weight_PN, correction

    def _sequences(self, rollouts: Rollouts, weight_PN: Tensor) -> list[Weighted]:
        return weighted(rollouts.prompts, rollouts.policy.ids, weight_PN)


class TokenReinforce(Reinforce):
    """REINFORCE with a per-token loss: a clipped ratio to the sampling policy, and the KL in the loss (PPO, GRPO)."""

    def _sequences(self, rollouts: Rollouts, weight_PN: Tensor) -> list[Weighted]:
        """Return the completions with a non-zero weight or KL factor, with the log-probabilities they are compared to.

        `drawn` stays None with one update per rollout: the live policy is then the one that sampled.
        """
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
        """Return the sum over tokens of kl * estimate - clipped surrogate, and per-token metrics.

        With several updates per rollout the metrics are `ratio` (to the sampling policy), `clipped` (1 where the clip
        binds) and `kl_to_drawing` (an unbiased estimate of KL(sampling policy || live policy), in nats per token).
        With a KL in the loss there is `kl_loss`, the minimised estimate in nats per token.
        """
        live_ST = logprobs_ST.detach()
        lengths_S1 = torch.tensor([[len(sequence.completion)] for sequence in sequences], device=live_ST.device)
        mask_ST = torch.arange(live_ST.shape[1], device=live_ST.device) < lengths_S1
        # Missing log-probabilities are filled with the live ones: a ratio of 1 with the gradient of REINFORCE.
        drawn_ST = _padded([sequence.drawn for sequence in sequences], live_ST)
        weight_S1 = torch.tensor([[sequence.weight] for sequence in sequences], device=live_ST.device)
        clip = None if self.config.clip is None else (self.config.clip[0], self.config.clip[1])
        value_ST, binds_ST = clipped_surrogate(logprobs_ST, drawn_ST, weight_S1, clip)
        loss_ST = -value_ST
        metrics: dict[str, Tensor] = {}
        if any(sequence.drawn is not None for sequence in sequences):
            # Blank completions have no `drawn` and must not enter the means.
            known_ST = mask_ST & torch.tensor([[s.drawn is not None] for s in sequences], device=live_ST.device)
            log_ratio_M = (live_ST - drawn_ST)[known_ST]
            metrics = {"ratio": log_ratio_M.exp(), "clipped": binds_ST[known_ST].float()}
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
    """Stack rows of log-probabilities into one tensor, [S, T]; missing rows and padding hold the live values."""
    padded_ST = live_ST.clone()
    for row_T, known in zip(padded_ST, tokens, strict=True):
        if known is not None:
            row_T[: len(known)] = known
    return padded_ST
