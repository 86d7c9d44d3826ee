"""The linear probe that all members of WARM start from: a head fitted on frozen features (Rame et al. 2024)."""

import torch
from torch import Tensor

from reward_models.bradley_terry import bradley_terry_loss

RIDGE = 1e-2  # weight of half the squared norm of the standardised head; without it a separable set has no optimum


def fit_head(difference_PH: Tensor, steps: int) -> Tensor:
    """The linear head that explains the preferences best, by L-BFGS on the ridge-penalised Bradley-Terry loss.

    Args:
        difference_PH: features of the chosen minus features of the rejected completion, [P, H].
        steps: most iterations of L-BFGS.

    Returns:
        [H], float32. The reward of a completion is its features times this.
    """
    scale = difference_PH.double().square().mean().sqrt().clamp_min(1e-12)
    data_PH = difference_PH.double() / scale
    head_H = torch.zeros(data_PH.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([head_H], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = bradley_terry_loss(data_PH @ head_H) + 0.5 * RIDGE * head_H.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    return (head_H.detach() / scale).float()
