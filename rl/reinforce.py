"""REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024) and the KL penalty in the reward."""

from collections.abc import Mapping

from torch import Tensor

from rl.algorithm import Learner, Rollouts, Weighted, Weights, corrected, leave_one_out, tie_rate, weighted
from rl.config import ReinforceAlgorithm


def penalised_reward(reward_PN: Tensor, logprob_PN: Tensor, reference_logprob_PN: Tensor, kl: float) -> Tensor:
    """r - kl (log pi - log pi_reference), [P, N]: its mean is the reward minus kl times KL(pi || reference)."""
    return reward_PN - kl * (logprob_PN - reference_logprob_PN)


class Reinforce:
    """Each completion is weighed by its penalised reward minus the mean of its prompt's other completions."""

    anchor_every = 1
    beside: Learner | None = None

    def __init__(self, config: ReinforceAlgorithm) -> None:
        """Take samples, KL weight and reference from the recipe."""
        self.kl, self.to_anchor = config.kl, config.kl_to == "anchor"
        self.importance_cap = config.importance_cap
        self.draws: Mapping[Weights, int] = {"policy": config.samples}
        self.anchor_rate = config.anchor_rate if self.to_anchor else 0.0
        self.needs_anchor_logprob = self.to_anchor
        self.needs_initial_logprob = not self.to_anchor

    def weigh(self, rollouts: Rollouts) -> tuple[list[Weighted], dict[str, float]]:
        """Weigh every completion of the policy; metrics name the reference that the KL was taken to."""
        policy = rollouts.policy
        reference_PN = policy.anchor_logprob_PN if self.to_anchor else policy.initial_logprob_PN
        assert policy.logprob_PN is not None and reference_PN is not None
        penalised_PN = penalised_reward(policy.reward_PN, policy.logprob_PN, reference_PN, self.kl)
        weight_PN = leave_one_out(penalised_PN) / policy.reward_PN.numel()
        metrics = {"tie_rate": tie_rate(policy.reward_PN)}
        if self.to_anchor:
            metrics["kl_to_anchor"] = (policy.logprob_PN - reference_PN).mean().item()
        weight_PN, correction = corrected(weight_PN, policy, self.importance_cap)
        return weighted(rollouts.prompts, policy.ids, weight_PN), metrics | correction
