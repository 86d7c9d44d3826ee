"""Quantiles counted among the anchor's samples."""

import math

import pytest
import torch

from gemsmith.rl.algorithms.bond import jbond_reward, scaled_bond_reward
from gemsmith.rl.algorithms.quantile import Placed, counted


def test_both_quantiles_are_counted_with_ties() -> None:
    anchor_P4 = torch.tensor([[0.0, 1.0, 1.0, 2.0]]).expand(4, 4)
    placed = counted(torch.tensor([-1.0, 0.0, 1.0, 3.0]), anchor_P4)
    assert placed.log_at_most_P.exp().tolist() == pytest.approx([0.5 / 4.5, 1.5 / 4.5, 3.5 / 4.5, 1])
    assert placed.log_below_P is not None
    share = (placed.log_below_P - placed.log_at_most_P).exp().tolist()
    assert share == pytest.approx([1, 0 / 1, 1 / 3, 4 / 4])  # share of worse among not better; 1 if there are none


def test_without_ties_the_correction_is_log_n_for_everyone() -> None:
    placed = Placed(torch.tensor([-3.0, -0.1]), torch.tensor([-3.0, -0.1]))
    assert scaled_bond_reward(placed, 4).tolist() == pytest.approx([3 * -3.0 + math.log(4), 3 * -0.1 + math.log(4)])


def test_right_or_wrong_is_enough_for_counted_quantiles_and_not_for_jbond() -> None:
    """Tilting the anchor by the mean scaled reward turns P(correct) = 0.1 into that of Best-of-4, 1 - 0.9^4 = 0.344."""
    torch.manual_seed(0)
    anchor_PK = (torch.rand(50_000, 16) < 0.1).float()

    def tilted(scaled_wrong: float, scaled_right: float) -> float:
        return 0.1 * math.exp(scaled_right) / (0.1 * math.exp(scaled_right) + 0.9 * math.exp(scaled_wrong))

    levels = [torch.full((50_000,), level) for level in (0.0, 1.0)]
    counts = [scaled_bond_reward(counted(reward_P, anchor_PK), 4).mean().item() for reward_P in levels]
    assert tilted(*counts) == pytest.approx(1 - 0.9**4, abs=0.005)
    assert tilted(*(jbond_reward(reward_P, anchor_PK[:, :2]).mean().item() for reward_P in levels)) < 0.11
