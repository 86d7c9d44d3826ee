"""Linear probe from which all members of WARM start: a head fitted on frozen features (Rame et al. 2024)."""

import torch
from torch import Tensor

from gemsmith.reward_models.bradley_terry import bradley_terry_loss

RIDGES = (1e-2, 1e-1, 1.0, 1e1, 1e2)  # weights of half the head's squared norm, for features of root mean square 1
FOLDS = 5
STEPS = 100  # maximum number of L-BFGS iterations


def fit_head(difference_PH: Tensor) -> Tensor:
    """Fit a linear head to the preferences by L-BFGS on the ridge-penalised Bradley-Terry loss.

    With fewer pairs than features the pairs can be separated perfectly, which makes an unregularised head
    overconfident. The ridge is therefore the element of `RIDGES` with the lowest cross-validation loss in five folds.

    Args:
        difference_PH: features of the chosen minus features of the rejected completion, [P, H].

    Returns:
        [H], float32. The reward of a completion is the dot product of its features and this head.
    """
    scale = difference_PH.double().square().mean().sqrt().clamp_min(1e-12)
    data_PH = difference_PH.double() / scale
    ridge = min(RIDGES, key=lambda ridge: left_out_loss(data_PH, ridge)) if len(data_PH) >= FOLDS else RIDGES[-1]
    return (_fit(data_PH, ridge) / scale).float()


def left_out_loss(data_PH: Tensor, ridge: float) -> float:
    """Return the Bradley-Terry loss of left-out pairs; a fold (every fifth pair) is scored by a head of the others."""
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
