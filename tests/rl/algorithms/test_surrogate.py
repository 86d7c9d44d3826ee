"""Gradients of the losses of PPO and GRPO, by enumeration of all completions of a small policy."""

import math

import pytest
import torch
from torch import Tensor

from gemsmith.rl.algorithms.surrogate import clipped_surrogate, kl_estimate


def gradient(value: Tensor, parameter: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, parameter, retain_graph=True)
    return found


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return the KL of two distributions of log-probabilities."""
    return (p.exp() * (p - q)).sum()


def test_at_a_ratio_of_one_the_gradient_is_the_weight() -> None:
    logprobs_12 = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    value, binds = clipped_surrogate(logprobs_12, logprobs_12.detach(), torch.tensor([[3.0]]), (0.2, 0.2))
    assert value.tolist() == [[3.0, 3.0]] and not binds.any()
    assert gradient(value.sum(), logprobs_12).tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("weight", "ratio", "value", "slope"),
    [
        (2.0, 1.1, 2.0 * 1.1, 2.0 * 1.1),  # inside
        (2.0, 1.5, 2.0 * 1.2, 0.0),  # a good token is likely enough
        (2.0, 0.5, 2.0 * 0.5, 2.0 * 0.5),  # a good token that became unlikely is always raised
        (-2.0, 0.5, -2.0 * 0.8, 0.0),  # a bad token is unlikely enough
        (-2.0, 1.5, -2.0 * 1.5, -2.0 * 1.5),  # a bad token that became likely is always lowered
    ],
)
def test_the_clip_binds_where_the_ratio_went_the_way_of_the_weight(
    weight: float, ratio: float, value: float, slope: float
) -> None:
    logprobs = torch.tensor([[math.log(ratio) - 1.0]], requires_grad=True)
    weight_11 = torch.tensor([[weight]])
    got, binds = clipped_surrogate(logprobs, torch.tensor([[-1.0]]), weight_11, (0.2, 0.2))
    assert got.item() == pytest.approx(value) and binds.item() == (slope == 0.0)
    assert gradient(got.sum(), logprobs).item() == pytest.approx(slope)
    free, binds = clipped_surrogate(logprobs, torch.tensor([[-1.0]]), weight_11, None)
    assert free.item() == pytest.approx(weight * ratio) and not binds.any()


def test_the_bounds_may_differ_and_a_low_of_one_is_none() -> None:
    ratio_12 = torch.tensor([[0.01, 5.0]]).log()
    good, _ = clipped_surrogate(ratio_12, torch.zeros(1, 2), torch.ones(1, 1), (1.0, 3.0))
    bad, binds = clipped_surrogate(ratio_12, torch.zeros(1, 2), -torch.ones(1, 1), (1.0, 3.0))
    assert good[0].tolist() == pytest.approx([0.01, 4.0])
    assert bad[0].tolist() == pytest.approx([-0.01, -5.0]) and not binds.any()


@pytest.fixture
def one_token() -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits and log-probabilities of a policy over five tokens, and a reference's log-probabilities."""
    torch.manual_seed(0)
    logits_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    return logits_V, logits_V.log_softmax(0), torch.randn(5, dtype=torch.float64).log_softmax(0)


def test_estimates_are_of_the_kl_as_values(one_token: tuple[Tensor, Tensor, Tensor]) -> None:
    _, policy_V, reference_V = one_token
    k3 = (policy_V.exp() * kl_estimate(policy_V, reference_V, "k3")).sum()
    assert k3.item() == pytest.approx(kl(policy_V, reference_V).item())  # sum(reference) - sum(policy) = 0
    assert kl_estimate(torch.tensor([[-1.0]]), torch.tensor([[-3.0]]), "k2").item() == 0.5 * 2.0**2
    assert kl_estimate(torch.tensor([[-1.0]]), torch.tensor([[-3.0]]), "k3").item() == pytest.approx(
        math.exp(-2.0) + 2.0 - 1.0
    )


def test_as_losses_k2_lowers_the_kl_and_k3_the_other_one(one_token: tuple[Tensor, Tensor, Tensor]) -> None:
    """The samples are fixed, so their probabilities are constants in the expected gradient; that of k1 is 0."""
    logits_V, policy_V, reference_V = one_token
    drawn_V = policy_V.detach().exp()
    k1, k2, k3 = (
        gradient((drawn_V * each_V).sum(), logits_V)
        for each_V in (
            policy_V - reference_V,
            kl_estimate(policy_V, reference_V, "k2"),
            kl_estimate(policy_V, reference_V, "k3"),
        )
    )
    assert torch.allclose(k1, torch.zeros_like(k1), atol=1e-12)
    assert torch.allclose(k2, gradient(kl(policy_V, reference_V), logits_V), atol=1e-12)
    assert torch.allclose(k3, gradient(kl(reference_V, policy_V), logits_V), atol=1e-12)
    assert not torch.allclose(k2, k3, atol=0.05)


def test_over_two_tokens_k2_holds_the_first_fixed_and_the_kl_in_the_reward_does_not() -> None:
    """The first token determines the KL at the second one; only the KL in the reward accounts for this."""
    torch.manual_seed(1)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)  # row 0: the first token; 1 + v: what follows v
    policy, reference = logits.log_softmax(1), torch.randn(4, 3, dtype=torch.float64).log_softmax(1)
    joint_33 = (policy[0][:, None] + policy[1:]).detach().exp()
    ratio_33 = (policy - reference)[0][:, None] + (policy - reference)[1:]
    exact = gradient((policy[0].exp()[:, None] * policy[1:].exp() * ratio_33).sum(), logits)
    logprob_33 = policy[0][:, None] + policy[1:]
    in_reward = gradient((joint_33 * ratio_33.detach() * logprob_33).sum(), logits)
    k2 = kl_estimate(policy, reference, "k2")
    in_loss = gradient((joint_33 * (k2[0][:, None] + k2[1:])).sum(), logits)
    held = kl(policy[0], reference[0]) + sum(
        policy[0, v].detach().exp() * kl(policy[1 + v], reference[1 + v]) for v in range(3)
    )
    assert torch.allclose(in_reward, exact, atol=1e-12)
    assert torch.allclose(in_loss, gradient(held, logits), atol=1e-12)
    assert not torch.allclose(in_loss[0], exact[0], atol=0.02) and torch.allclose(in_loss[1:], exact[1:], atol=1e-12)
