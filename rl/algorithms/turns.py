"""Policy gradient for episodes of several turns, after RLEF (Gehring et al. 2024, arXiv 2410.02089).

Instead of RLEF's value model, the baseline of a turn is the same turn in the prompt's other episodes.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from gemsmith.rl.algorithms.algorithm import Rollouts, Weighted
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm


@dataclass(frozen=True, kw_only=True)
class Episodes(Rollouts):
    """Rollouts of R turns; the prompt of each row is the conversation so far, and each row has one completion, N = 1.

    Attributes:
        prompt_R: index of the prompt within the step, non-decreasing over rows.
        episode_R: index of the episode; its turns are consecutive rows in order.
        turn_R: index of the turn within its episode, from 0.
        asked: number of prompts in the step, including prompts whose episodes were all left out.
        spare: a completion of weight 0, for `blank`.
    """

    prompt_R: Tensor
    episode_R: Tensor
    turn_R: Tensor
    asked: int
    spare: Weighted

    def parts(self, count: int) -> list[Rollouts]:
        """Split the prompts into `count` parts, each with all turns of its episodes; a part may have no rows."""
        cuts = torch.tensor([self.asked * part // count for part in range(count + 1)])
        # prompt_R is sorted, so the rows of a range of prompts are a contiguous slice: no episode is split.
        rows = torch.searchsorted(self.prompt_R, cuts).tolist()
        asked = cuts.diff().tolist()
        return [self._rows(slice(*ends), prompts) for ends, prompts in zip(pairwise(rows), asked, strict=True)]

    def blank(self) -> Weighted:
        """Return a completion of weight 0; see `Rollouts.blank`."""
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
    """Sum the rewards of each turn and all later turns of its episode, [R]; an episode's turns must be in order."""
    same_RR = episode_R[:, None] == episode_R[None, :]
    # Entry (i, j) of the upper triangle pairs turn i with itself and with the later turns j of its episode.
    return torch.where(same_RR.triu(), reward_R, 0.0).sum(dim=1)


def turn_advantages(return_R: Tensor, prompt_R: Tensor, turn_R: Tensor) -> Tensor:
    """Subtract from each turn's return the mean return of the same turn in the prompt's other episodes, [R].

    Episodes are sampled independently, so the baseline does not depend on the completion it is subtracted from and the
    gradient stays unbiased, although conversations differ from the second turn on. If no other episode of the prompt
    reached that turn, the baseline is the mean over the step's other prompts at that turn; if none of those did, it
    is 0.
    """
    same_turn_RR = turn_R[:, None] == turn_R[None, :]
    same_prompt_RR = prompt_R[:, None] == prompt_R[None, :]
    # Row i marks the turns that form the baseline of turn i; no turn is part of its own baseline.
    own_RR = same_turn_RR & same_prompt_RR & ~torch.eye(len(return_R), dtype=torch.bool)
    alone_R1 = ~own_RR.any(dim=1, keepdim=True)
    counted_RR = torch.where(alone_R1, same_turn_RR & ~same_prompt_RR, own_RR)
    # An empty row has sum 0 and count 0: the clamp makes its baseline 0 instead of NaN.
    sum_R = torch.where(counted_RR, return_R, 0.0).sum(dim=1)
    return return_R - sum_R / counted_RR.sum(dim=1).clamp(min=1)


def episode_tie_rate(reward_R: Tensor, episode_R: Tensor, prompt_R: Tensor) -> float | None:
    """Return the share of pairs of one prompt's episodes with equal total rewards; None if there is no such pair."""
    # Rows of an episode are consecutive, so an episode starts where the index changes, and the return of its first turn
    # is the total of the episode.
    first_R = torch.cat([torch.ones(1, dtype=torch.bool), episode_R.diff() != 0])
    total_E, prompt_E = returns(reward_R, episode_R)[first_R], prompt_R[first_R]
    pairs_EE = (prompt_E[:, None] == prompt_E[None, :]).triu(diagonal=1)
    if not pairs_EE.any():
        return None
    return (total_E[:, None] == total_E[None, :])[pairs_EE].float().mean().item()


def penalised_turns(reward_R: Tensor, log_ratio_R: Tensor, length_R: Tensor, kl: float) -> Tensor:
    """Compute r - kl * (log pi - log reference) / length, [R].

    Dividing by the length in tokens makes the penalty a mean per token, which does not favour short completions.
    """
    return reward_R - kl * log_ratio_R / length_R


def turn_weights(
    rollouts: Rollouts, reference_PN: Tensor, config: ReinforceAlgorithm
) -> tuple[Tensor, dict[str, float]]:
    """Return the weight of every turn, [R, 1], its advantage divided by the number of episodes, and metrics.

    `zero_advantage` is the share of turns whose return equals their baseline, and `tie_rate` the share of pairs of a
    prompt's episodes with equal total rewards. Both ignore the KL penalty.
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
