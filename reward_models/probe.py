"""The linear probe that all members of WARM start from: a head fitted on frozen features (Rame et al. 2024)."""

import torch
from torch import Tensor

from gemsmith.reward_models.bradley_terry import bradley_terry_loss

RIDGES = (1e-2, 1e-1, 1.0, 1e1, 1e2)  # weights of half the squared norm of the head, on features of root mean square 1
FOLDS = 5
STEPS = 100  # most iterations of L-BFGS


def fit_head(difference_PH: Tensor) -> Tensor:
    """The linear head that explains the preferences best, by L-BFGS on the ridge-penalised Bradley-Terry loss.

    Fewer pairs than features can always be told apart, and a head that does so is sure of what it does not know. So the
    ridge is the one of `RIDGES` that predicts left-out pairs best, over five folds.

    Args:
        difference_PH: features of the chosen minus features of the rejected completion, [P, H].

    Returns:
        [H], float32. The reward of a completion is its features times this.
    """
    scale = difference_PH.double().square().mean().sqrt().clamp_min(1e-12)
    data_PH = difference_PH.double() / scale
    ridge = min(RIDGES, key=lambda ridge: left_out_loss(data_PH, ridge)) if len(data_PH) >= FOLDS else RIDGES[-1]
    return (_fit(data_PH, ridge) / scale).float()


def left_out_loss(data_PH: Tensor, ridge: float) -> float:
    """Bradley-Terry loss of each fold's pairs (every fifth one) under the head that was fitted to the others."""
    margin_P = torch.empty(len(data_PH), dtype=data_PH.dtype)
    for fold in range(FOLDS):
        left_out = torch.arange(len(data_PH)) % FOLDS == fold
        margin_P[left_out] = data_PH[left_out] @ _fit(data_PH[~left_out], ridge)
    return bradley_terry_loss(margin_P).item()


def _fit(data_PH: Tensor, ridge: float) -> Tensor:
    head_H = torch.zeros(data_PH.shape[1], dtype=data_PH.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([head_H], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = bradley_terry_loss(data_PH @ head_H) + 0.5 * ridge * head_H.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    return head_H.detach()
