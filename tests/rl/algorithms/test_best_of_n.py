"""Estimated quantiles and the reward of J-BOND, compared by sampling with the values from the paper's theorems."""

import math

import pytest
import torch

from gemsmith.rl.algorithms.best_of_n import log_quantile_estimate
from gemsmith.rl.algorithms.bond import jbond_reward

DRAWS = 400_000


def test_the_estimate_of_a_quantile_never_is_minus_infinity() -> None:
    reward_P, anchors_PK = torch.tensor([0.0, 2.0, 9.0]), torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 3)
    counted = {
        "half": [0.5 / 4.5, 2.5 / 4.5, 4.5 / 4.5],
        "one": [1 / 5, 3 / 5, 5 / 5],
        "floor": [0.5 / 4, 2 / 4, 4 / 4],
    }
    for zeros, expected in counted.items():
        found_P = log_quantile_estimate(reward_P, anchors_PK, zeros)  # type: ignore[arg-type]
        assert found_P.exp().tolist() == pytest.approx(expected)


def test_of_the_estimates_at_a_low_quantile_half_a_count_is_the_least_biased_smooth_one() -> None:
    """The exact value is log 0.05 = -3.00; the estimates at K = 16 are floor -2.92, half -2.76, one -2.35."""
    anchors_PK = torch.rand(200_000, 16, generator=torch.Generator().manual_seed(0))
    at = torch.full((200_000,), 0.05)
    means = {zeros: log_quantile_estimate(at, anchors_PK, zeros).mean().item() for zeros in ("floor", "half", "one")}  # type: ignore[arg-type]
    assert means == pytest.approx({"floor": -2.92, "half": -2.76, "one": -2.35}, abs=0.02)


def test_the_mean_jbond_reward_is_near_the_log_quantile_and_equal_to_it_at_the_median() -> None:
    anchors_P2 = torch.rand(DRAWS, 2, generator=torch.Generator().manual_seed(0))
    for p, expected in ((0.1, -2.246), (0.25, -1.560), (0.5, -0.693), (0.75, -0.173), (0.9, -0.028)):
        assert jbond_reward(torch.full((DRAWS,), p), anchors_P2).mean().item() == pytest.approx(expected, abs=0.01)
        assert -math.log(16) * (1 - p) ** 2 == pytest.approx(expected, abs=6e-4)


def test_the_strict_comparison_is_the_one_that_gives_the_squared_chance_of_losing_under_ties() -> None:
    """With five equal levels, P(an anchor sample is better than level 2) is 0.6; P(better or tied) is 0.8."""
    levels_P2 = (torch.rand(DRAWS, 2, generator=torch.Generator().manual_seed(0)) * 5).floor()
    strict = jbond_reward(torch.ones(DRAWS), levels_P2).mean().item()
    loose = (
        jbond_reward(torch.full((DRAWS,), 0.999), levels_P2).mean().item()
    )  # just below the level, so that ties count as worse
    assert strict == pytest.approx(-math.log(16) * 0.6**2, abs=0.01)
    assert loose == pytest.approx(-math.log(16) * 0.8**2, abs=0.012)
