"""Every number that BOND's theorems give, by enumeration and by drawing."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.fidelity.toys.best_of_n_law import (
    backward_loss,
    best_of_n_logprob,
    bond_reward,
    forward_loss,
    jeffreys,
    kl,
    log_quantiles,
)
from gemsmith.rl.algorithms.best_of_n import kl_bound, log_correction
from gemsmith.rl.algorithms.bond import policy_weights

DRAWS = 400_000


def reference(outputs: int = 12, levels: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a random law and rewards with many ties."""
    generator = torch.Generator().manual_seed(seed)
    logprob_V = torch.randn(outputs, generator=generator, dtype=torch.float64).log_softmax(0)
    return logprob_V, torch.randint(0, levels, (outputs,), generator=generator).double()


def drawn_best(logprob_V: Tensor, reward_V: Tensor, n: int, lowest_id: bool = False) -> Tensor:
    """Share of each output among the best of n draws; the first drawn wins a tie, or else the lowest number."""
    generator = torch.Generator().manual_seed(1)
    drawn_DN = torch.multinomial(logprob_V.exp(), DRAWS * n, replacement=True, generator=generator).view(DRAWS, n)
    if lowest_id:
        drawn_DN = drawn_DN.sort(dim=1).values
    best_D = drawn_DN.gather(1, reward_V[drawn_DN].argmax(dim=1, keepdim=True))[:, 0]
    return torch.bincount(best_D, minlength=len(logprob_V)).double() / DRAWS


def test_quantiles_count_ties_as_not_better() -> None:
    probability_V, reward_V = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), torch.tensor([2, 1, 2, 3])
    below_V, at_most_V = (log.exp() for log in log_quantiles(probability_V.log(), reward_V))
    assert below_V.tolist() == pytest.approx([0.2, 0.0, 0.2, 0.1 + 0.2 + 0.3])
    assert at_most_V.tolist() == pytest.approx([0.2 + 0.1 + 0.3, 0.2, 0.2 + 0.1 + 0.3, 1.0])


def test_quantiles_of_several_prompts_are_those_of_each() -> None:
    pairs = [reference(seed=seed) for seed in range(3)]
    together = log_quantiles(torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs]))
    for row, pair in enumerate(pairs):
        assert all(torch.equal(whole[row], one) for whole, one in zip(together, log_quantiles(*pair), strict=True))


def test_best_of_two_by_hand() -> None:
    """Outputs of 0.2, 0.3, 0.5, the last two tied: the first wins only if drawn twice, the others share the rest."""
    probability_V, reward_V = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), torch.tensor([0.0, 1.0, 1.0])
    best_V = best_of_n_logprob(probability_V.log(), reward_V, 2).exp()
    assert best_V.tolist() == pytest.approx([0.2**2, (1 - 0.2**2) * 0.3 / 0.8, (1 - 0.2**2) * 0.5 / 0.8])


@pytest.mark.parametrize("n", [2, 4, 16])
def test_theorem_1_with_ties_sums_to_one_and_is_the_law_of_the_first_drawn_best(n: int) -> None:
    logprob_V, reward_V = reference()
    best_V = best_of_n_logprob(logprob_V, reward_V, n).exp()
    assert best_V.sum().item() == pytest.approx(1.0, abs=1e-12)
    noise = 5 * 0.5 / math.sqrt(DRAWS)  # five standard errors of a share
    assert (best_V - drawn_best(logprob_V, reward_V, n)).abs().max().item() < noise


@pytest.mark.parametrize("n", [2, 16])
def test_a_fixed_order_among_ties_is_another_law_until_the_rewards_are_refined_into_it(n: int) -> None:
    logprob_V, reward_V = reference()
    drawn_V = drawn_best(logprob_V, reward_V, n, lowest_id=True)
    assert (best_of_n_logprob(logprob_V, reward_V, n).exp() - drawn_V).abs().max().item() > 0.04
    refined_V = reward_V - 0.01 * torch.arange(len(reward_V))  # of tied outputs, the lower number is better
    assert (best_of_n_logprob(logprob_V, refined_V, n).exp() - drawn_V).abs().max().item() < 5 * 0.5 / math.sqrt(DRAWS)


def test_the_appendix_exponent_is_n_minus_i() -> None:
    """Appendix A.1 has one line with n - i - 1, with which the law does not sum to one (erratum)."""
    logprob_V, reward_V = reference()
    below_V, at_most_V = (log.exp() for log in log_quantiles(logprob_V, reward_V))
    sums = {
        shift: sum(logprob_V.exp() * below_V ** (i - 1) * at_most_V ** (4 - i - shift) for i in range(1, 5))
        for shift in (0, 1)
    }
    assert torch.as_tensor(sums[0]).sum().item() == pytest.approx(1.0, abs=1e-12)
    assert torch.as_tensor(sums[1]).sum().item() != pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("n", [2, 8])
def test_best_of_n_is_the_reference_tilted_by_the_bond_reward(n: int) -> None:
    logprob_V, reward_V = reference()
    tilted_V = logprob_V + (n - 1) * bond_reward(logprob_V, reward_V, n)
    assert tilted_V.exp().sum().item() == pytest.approx(1.0, abs=1e-14)  # Z = 1, nothing to normalise
    assert torch.allclose(tilted_V, best_of_n_logprob(logprob_V, reward_V, n), atol=1e-13)


@pytest.mark.parametrize("n", [2, 8])
def test_the_correction_is_between_0_and_log_n_and_small_once_divided(n: int) -> None:
    logprob_V, reward_V = reference()
    correction_V = log_correction(*log_quantiles(logprob_V, reward_V), n)
    assert correction_V[reward_V == reward_V.min()].tolist() == pytest.approx([0.0] * int((reward_V == 0).sum()))
    assert correction_V.min() >= 0.0 and correction_V.max() <= math.log(n)
    without_V = (logprob_V + (n - 1) * bond_reward(logprob_V, reward_V, n, correction=False)).log_softmax(0)
    with_V = best_of_n_logprob(logprob_V, reward_V, n)
    assert 0.5 * (without_V.exp() - with_V.exp()).abs().sum().item() < 0.1


def test_without_ties_and_with_many_outputs_the_correction_hardly_matters() -> None:
    generator = torch.Generator().manual_seed(0)
    logprob_V = torch.randn(4000, generator=generator, dtype=torch.float64).log_softmax(0)
    reward_V = torch.rand(4000, generator=generator, dtype=torch.float64)
    without_V = (logprob_V + 7 * bond_reward(logprob_V, reward_V, 8, correction=False)).softmax(0)
    distance = 0.5 * (without_V - best_of_n_logprob(logprob_V, reward_V, 8).exp()).abs().sum().item()
    assert distance < 0.001


def test_best_of_two_twice_is_best_of_four_even_with_ties() -> None:
    logprob_V, reward_V = reference()
    twice_V = best_of_n_logprob(best_of_n_logprob(logprob_V, reward_V, 2), reward_V, 2)
    assert torch.allclose(twice_V.exp(), best_of_n_logprob(logprob_V, reward_V, 4).exp(), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("outputs", "least"), [(12, 1.65), (200, 1.82), (20_000, 1.834)])
def test_the_kl_of_best_of_16_comes_up_to_its_bound(outputs: int, least: float) -> None:
    even_V = torch.full((outputs,), -math.log(outputs), dtype=torch.float64)
    found = kl(best_of_n_logprob(even_V, torch.arange(outputs), 16), even_V).item()
    assert kl_bound(16) == pytest.approx(1.835, abs=5e-4)  # log 16 - 15/16
    assert least < found <= kl_bound(16) + 1e-9


def test_the_kl_of_best_of_n_stays_below_its_bound_where_rewards_tie() -> None:
    logprob_V, reward_V = reference()
    for n in (2, 4, 16):
        assert 0 < kl(best_of_n_logprob(logprob_V, reward_V, n), logprob_V).item() < kl_bound(n)


def gradients(loss: Tensor, exact: Tensor, logits_V: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the two with respect to the logits."""
    found, true = (torch.autograd.grad(value, logits_V, retain_graph=True)[0] for value in (loss, exact))
    return found, true


def test_the_losses_have_the_gradients_of_the_two_divergences() -> None:
    logprob_V, reward_V = reference()
    target_V = best_of_n_logprob(logprob_V, reward_V, 4)
    logits_V = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    policy_V = logits_V.log_softmax(0)
    got, exact = gradients(forward_loss(policy_V, target_V), kl(target_V, policy_V), logits_V)
    assert torch.allclose(got, exact, rtol=0, atol=1e-12)  # equation 13
    backward = backward_loss(policy_V, logprob_V, bond_reward(logprob_V, reward_V, 4), 4)
    got, exact = gradients(backward, kl(policy_V, target_V), logits_V)
    assert torch.allclose(got, exact, rtol=0, atol=1e-12)  # equation 15


def test_jeffreys_weighs_the_backward_divergence_by_beta() -> None:
    policy_V, target_V = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    forward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    backward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert jeffreys(policy_V, target_V, 0.0).item() == pytest.approx(forward, abs=1e-6)
    assert jeffreys(policy_V, target_V, 1.0).item() == pytest.approx(backward, abs=1e-6)
    assert jeffreys(policy_V, target_V, 0.2).item() == pytest.approx(0.8 * forward + 0.2 * backward, abs=1e-6)


def test_jbonds_induced_target_is_a_close_stand_in_for_best_of_two() -> None:
    """On quantiles u: exp(-log 16 (1 - u)^2) has mean .676 and KL .209; Best-of-2, 2 u, has 2/3 and log 2 - 1/2."""
    u_V = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    even_V = torch.full_like(u_V, -math.log(20_000))
    target_V = (-math.log(16) * (1 - u_V) ** 2).log_softmax(0)
    best_V = best_of_n_logprob(even_V, u_V, 2)
    assert (target_V.exp() * u_V).sum().item() == pytest.approx(0.676, abs=1e-3)
    assert (best_V.exp() * u_V).sum().item() == pytest.approx(2 / 3, abs=1e-3)
    assert kl(target_V, even_V).item() == pytest.approx(0.209, abs=1e-3)
    assert kl(best_V, even_V).item() == pytest.approx(math.log(2) - 0.5, abs=1e-3)
    assert 0.5 * (target_V.exp() - best_V.exp()).abs().sum().item() == pytest.approx(0.034, abs=2e-3)


def test_the_printed_sign_of_the_regulariser_would_raise_the_kl_to_the_anchor() -> None:
    """Algorithm 2 descends the term as printed; its cosine with the gradient of KL(pi || anchor) is -1, ours +1."""
    logits_V = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    anchor_V = reference()[0]
    logprob_V = logits_V.log_softmax(0)
    ratio_V = (logprob_V - anchor_V).detach()
    held_V = logprob_V.detach().exp()
    ours = -(held_V * policy_weights(torch.zeros_like(ratio_V), ratio_V, beta=0.0, gamma=1.0) * logprob_V).sum()
    printed = -(held_V * ratio_V * logprob_V).sum()
    for loss, cosine in ((ours, 1.0), (printed, -1.0)):
        got, exact = gradients(loss, kl(logprob_V, anchor_V), logits_V)
        assert torch.nn.functional.cosine_similarity(got, exact, dim=0).item() == pytest.approx(cosine, abs=1e-9)
