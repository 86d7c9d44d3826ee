"""Learning from episodes of several turns, in the shape of RLEF (Gehring et al. 2024, arXiv 2410.02089).

There is no value model: a turn is held against the same turn of the prompt's other episodes.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from gemsmith.rl.algorithms.algorithm import Rollouts, Weighted
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm


@dataclass(frozen=True, kw_only=True)
class Episodes(Rollouts):
    """Rollouts of R turns: each row has a conversation for its prompt and one completion, N = 1.

    Attributes:
        prompt_R: which of the step's prompts the episode began with; it never falls from row to row.
        episode_R: which episode; its turns stand in order.
        turn_R: which turn of it, from 0.
        asked: number of prompts; those without an episode that counts are among them.
        spare: a completion that teaches nothing.
    """

    prompt_R: Tensor
    episode_R: Tensor
    turn_R: Tensor
    asked: int
    spare: Weighted

    def parts(self, count: int) -> list[Rollouts]:
        """The prompts in `count` parts, with all turns of their episodes; a part may have none."""
        cuts = torch.tensor([self.asked * part // count for part in range(count + 1)])
        rows = torch.searchsorted(self.prompt_R, cuts).tolist()
        asked = cuts.diff().tolist()
        return [self._rows(slice(*ends), prompts) for ends, prompts in zip(pairwise(rows), asked, strict=True)]

    def blank(self) -> Weighted:
        """See `Rollouts.blank`."""
        return self.spare

    def _rows(self, rows: slice, asked: int) -> "Episodes":
        return replace(
            self,
            prompts=self.prompts[rows],
            policy=self.policy.of_prompts(rows),
            prompt_R=self.prompt_R[rows],
            episode_R=self.episode_R[rows],
            turn_R=self.turn_R[rows],
            asked=asked,
        )


def returns(reward_R: Tensor, episode_R: Tensor) -> Tensor:
    """What each turn and those after it in its episode earn together, [R]; turns of an episode stand in order."""
    same_RR = episode_R[:, None] == episode_R[None, :]
    return torch.where(same_RR.triu(), reward_R, 0.0).sum(dim=1)


def turn_advantages(return_R: Tensor, prompt_R: Tensor, turn_R: Tensor) -> Tensor:
    """Each turn's return minus the mean of that of the same turn in the prompt's other episodes, [R].

    The others were drawn on their own, so the baseline knows nothing of the completion that it judges and the gradient
    stays unbiased, though from the second turn on their conversations are not the same. Where no other episode of the
    prompt came to that turn, the baseline is the mean over the step's other prompts at that turn; where none of those
    did, it is 0.
    """
    same_turn_RR = turn_R[:, None] == turn_R[None, :]
    same_prompt_RR = prompt_R[:, None] == prompt_R[None, :]
    own_RR = same_turn_RR & same_prompt_RR & ~torch.eye(len(return_R), dtype=torch.bool)
    alone_R1 = ~own_RR.any(dim=1, keepdim=True)
    counted_RR = torch.where(alone_R1, same_turn_RR & ~same_prompt_RR, own_RR)
    sum_R = torch.where(counted_RR, return_R, 0.0).sum(dim=1)
    return return_R - sum_R / counted_RR.sum(dim=1).clamp(min=1)


def episode_tie_rate(reward_R: Tensor, episode_R: Tensor, prompt_R: Tensor) -> float | None:
    """Share of pairs of one prompt's episodes whose turns earned the same together; None where there is no pair."""
    first_R = torch.cat([torch.ones(1, dtype=torch.bool), episode_R.diff() != 0])
    total_E, prompt_E = returns(reward_R, episode_R)[first_R], prompt_R[first_R]
    pairs_EE = (prompt_E[:, None] == prompt_E[None, :]).triu(diagonal=1)
    if not pairs_EE.any():
        return None
    return (total_E[:, None] == total_E[None, :])[pairs_EE].float().mean().item()


def penalised_turns(reward_R: Tensor, log_ratio_R: Tensor, length_R: Tensor, kl: float) -> Tensor:
    """r - kl * (log pi - log reference) / length, [R]: the ratio of geometric means, which punishes no length."""
    return reward_R - kl * log_ratio_R / length_R


def turn_weights(
    rollouts: Rollouts, reference_PN: Tensor, config: ReinforceAlgorithm
) -> tuple[Tensor, dict[str, float]]:
    """The weight of every turn, [R, 1]: its advantage over the number of episodes; and metrics.

    `zero_advantage` is the share of turns that earned just what the others did, `tie_rate` that of pairs of a prompt's
    episodes that did.
    """
    assert isinstance(rollouts, Episodes) and rollouts.policy.logprob_PN is not None
    reward_R, log_ratio_R = rollouts.policy.learnt_reward_PN[:, 0], (rollouts.policy.logprob_PN - reference_PN)[:, 0]
    length_R = torch.tensor([float(len(completion)) for completion in rollouts.policy.ids])

    def advantages(reward_R: Tensor) -> Tensor:
        return turn_advantages(returns(reward_R, rollouts.episode_R), rollouts.prompt_R, rollouts.turn_R)

    metrics = {"zero_advantage": (advantages(reward_R) == 0).float().mean().item()}
    tie_rate = episode_tie_rate(reward_R, rollouts.episode_R, rollouts.prompt_R)
    if tie_rate is not None:
        metrics["tie_rate"] = tie_rate
    advantage_R = advantages(penalised_turns(reward_R, log_ratio_R, length_R, config.kl))
    return advantage_R[:, None] / len(rollouts.episode_R.unique()), metrics
