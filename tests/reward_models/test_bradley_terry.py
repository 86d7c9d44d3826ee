import math

import pytest
import torch

from gemsmith.reward_models.bradley_terry import accuracy, bradley_terry_loss
from gemsmith.reward_models.probe import fit_head


def test_loss_is_minus_the_log_of_the_preference_probability():
    assert bradley_terry_loss(torch.zeros(4)).item() == pytest.approx(math.log(2))
    expected = -(math.log(1 / (1 + math.exp(-2.0))) + math.log(1 / (1 + math.exp(1.0)))) / 2
    assert bradley_terry_loss(torch.tensor([2.0, -1.0])).item() == pytest.approx(expected)
    assert bradley_terry_loss(torch.tensor([-1e4])).item() == pytest.approx(1e4)  # no overflow


def test_accuracy_counts_ties_half_and_has_wilsons_interval():
    found = accuracy([1.0, 2.0, -1.0, 0.0])
    assert found.mean == (1 + 1 + 0 + 0.5) / 4
    certain = accuracy([1.0] * 10)
    assert (certain.mean, certain.high) == (1.0, 1.0)
    assert certain.low == pytest.approx(10 / (10 + 1.96**2), abs=1e-4)  # Wilson's bound at n of n: n / (n + z^2)
    half = accuracy([1.0, -1.0] * 50)
    assert half.high - half.mean == pytest.approx(1.96 * 0.5 / math.sqrt(100 + 1.96**2), abs=1e-4)


def test_pairs_of_one_prompt_do_not_narrow_the_interval():
    margins = [1.0, -1.0] * 50
    assert accuracy(margins, independent=10) == accuracy([1.0, -1.0] * 5)


def test_probe_finds_the_direction_that_explains_the_preferences():
    torch.manual_seed(0)
    truth = torch.randn(20)
    features = torch.randn(400, 20)
    difference = features * torch.sign(features @ truth)[:, None]  # every chosen completion is better along `truth`
    head = fit_head(difference)
    assert torch.cosine_similarity(head, truth, dim=0) > 0.98
    assert (torch.randn(1000, 20) @ head).abs().max() < 1e3  # separable data, but a finite head
    rescaled = fit_head(100 * difference)  # the ridge acts on standardised features
    assert torch.allclose(100 * rescaled, head, rtol=1e-3, atol=1e-3)


def test_probe_of_pairs_that_say_nothing_is_not_sure_of_itself():
    torch.manual_seed(0)
    difference, fresh = torch.randn(100, 200), torch.randn(1000, 200)  # more features than pairs, and random labels
    head = fit_head(difference)
    assert bradley_terry_loss(fresh @ head) < 0.72  # a constant reward has log 2 = 0.69; the smallest ridge gives 1.5


def test_probe_of_fewer_pairs_than_folds_is_finite():
    assert torch.isfinite(fit_head(torch.randn(3, 10))).all()
