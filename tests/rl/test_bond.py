import math

import pytest
import torch

from rl.algorithm import Draw, Rollouts, leave_one_out, tie_rate
from rl.bond import JBond, backward_return, jbond_reward, policy_weights
from rl.config import BondAlgorithm


@pytest.mark.parametrize("quantile", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_jbond_reward_has_mean_log16_times_the_squared_chance_of_losing(quantile: float) -> None:
    torch.manual_seed(0)
    anchors_P2 = torch.rand(400_000, 2)
    mean = jbond_reward(torch.full((400_000,), quantile), anchors_P2).mean().item()
    assert mean == pytest.approx(-math.log(16) * (1 - quantile) ** 2, abs=0.01)


def test_a_tie_with_an_anchor_sample_is_not_worse() -> None:
    reward_P = torch.tensor([1.0, 0.0, 0.0])
    anchors_P2 = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 2.0]])
    assert jbond_reward(reward_P, anchors_P2).tolist() == pytest.approx([0.0, 0.0, -math.log(16)])


def test_jbond_is_blind_to_monotone_transforms_of_the_reward() -> None:
    torch.manual_seed(0)
    reward_P, anchors_P2 = torch.randn(1000), torch.randn(1000, 2)
    assert torch.equal(jbond_reward(reward_P, anchors_P2), jbond_reward((5 * reward_P).exp(), (5 * anchors_P2).exp()))


def test_the_baseline_is_the_mean_of_the_others() -> None:
    assert leave_one_out(torch.tensor([1.0, 2.0, 6.0])).tolist() == [1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2]


def test_the_regulariser_descends_the_kl_to_the_anchor() -> None:
    """Erratum: ascending sum(weight * log pi) with gamma > 0 must lower KL(pi || anchor), by exact enumeration."""
    torch.manual_seed(0)
    logits_V = torch.randn(6, dtype=torch.float64, requires_grad=True)
    anchor_V = torch.randn(6, dtype=torch.float64).log_softmax(0)
    logprob_V = logits_V.log_softmax(0)
    kl = (logprob_V.exp() * (logprob_V - anchor_V)).sum()
    (kl_gradient,) = torch.autograd.grad(kl, logits_V, retain_graph=True)
    weights_V = policy_weights(torch.zeros(6, dtype=torch.float64), (logprob_V - anchor_V).detach(), 0.5, 1.0)
    objective = (logprob_V.exp().detach() * weights_V * logprob_V).sum()
    (ascent,) = torch.autograd.grad(objective, logits_V)
    assert torch.allclose(ascent, -kl_gradient, atol=1e-10)


def test_the_backward_term_is_the_policy_gradient_of_the_exact_objective() -> None:
    """E_pi[grad log pi * R] with R = r_J - log(pi / anchor) is minus the gradient of KL(pi || anchor * exp(r_J))."""
    torch.manual_seed(1)
    logits_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    anchor_V, reward_V = torch.randn(5, dtype=torch.float64).log_softmax(0), -torch.rand(5, dtype=torch.float64)
    logprob_V = logits_V.log_softmax(0)
    (expected,) = torch.autograd.grad(
        -(logprob_V.exp() * (logprob_V - anchor_V - reward_V)).sum(), logits_V, retain_graph=True
    )
    return_V = backward_return(reward_V, logprob_V, anchor_V).detach()
    (got,) = torch.autograd.grad((logprob_V.exp().detach() * return_V * logprob_V).sum(), logits_V)
    assert torch.allclose(got, expected, atol=1e-10)


def _rollouts() -> Rollouts:
    prompts = [[2, 7], [2, 8]]
    policy = Draw(
        ids=[[10], [11]],
        reward_PN=torch.tensor([[0.0], [1.0]]),
        logprob_PN=torch.tensor([[-1.0], [-2.0]]),
        anchor_logprob_PN=torch.tensor([[-1.5], [-1.0]]),
    )
    anchor = Draw(ids=[[20], [21], [22], [23]], reward_PN=torch.tensor([[0.2, 0.9], [0.5, 0.5]]))
    return Rollouts(prompts, policy, anchor)


def test_weights_of_one_step_are_those_of_algorithm_2() -> None:
    config = BondAlgorithm(
        kind="bond", data="d", rewards=["r"], steps=1, batch=2, learning_rate=0.1, beta=0.25, gamma=0.5
    )
    sequences, metrics = JBond(config).weigh(_rollouts())
    got = {(s.prompt[1], s.completion[0]): s.weight for s in sequences}
    first, second = -math.log(16) - (-1.0 + 1.5), 0.0 - (-2.0 + 1.0)
    assert got == {
        (7, 10): pytest.approx((0.25 * (first - second) - 0.5 * (-1.0 + 1.5)) / 2, rel=1e-5),
        (8, 11): pytest.approx((0.25 * (second - first) - 0.5 * (-2.0 + 1.0)) / 2, rel=1e-5),
        (7, 21): pytest.approx(0.75 / 2),  # the better of the anchor's two
        (8, 22): pytest.approx(0.75 / 2),  # a tie: the first drawn
    }
    assert metrics["fraction_worse"] == 0.5


def test_tie_rate_counts_pairs_of_one_prompt() -> None:
    assert tie_rate(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])) == pytest.approx((1 + 0) / (3 + 3))
