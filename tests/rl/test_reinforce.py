import pytest
import torch

from rl.algorithm import Draw, Rollouts, corrected
from rl.config import ReinforceAlgorithm
from rl.reinforce import Reinforce, penalised_reward


def _config(**fields: object) -> ReinforceAlgorithm:
    common = {"kind": "reinforce", "data": "d", "rewards": ["r"], "steps": 1, "batch": 1, "learning_rate": 0.1}
    return ReinforceAlgorithm(**common, **fields)


def test_the_penalty_is_kl_times_the_log_ratio() -> None:
    got = penalised_reward(torch.tensor([[1.0]]), torch.tensor([[-1.0]]), torch.tensor([[-3.0]]), 0.1)
    assert got.item() == pytest.approx(1.0 - 0.1 * (-1.0 + 3.0))


def test_weights_are_penalised_rewards_minus_the_other_samples_of_the_prompt() -> None:
    draw = Draw(
        ids=[[10], [11], [12], [13]],
        reward_PN=torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
        logprob_PN=torch.tensor([[-1.0, -1.0], [-1.0, -2.0]]),
        initial_logprob_PN=torch.tensor([[-1.0, -2.0], [-1.0, -2.0]]),
    )
    sequences, metrics = Reinforce(_config(kl=0.5)).weigh(Rollouts([[2], [2]], draw))
    first = 1.0 - (0.0 - 0.5 * (-1.0 + 2.0))
    assert [s.weight for s in sequences] == pytest.approx([first / 4, -first / 4])
    assert [s.completion for s in sequences] == [[10], [11]]  # the tied prompt teaches nothing
    assert metrics["tie_rate"] == 0.5


def test_the_gradient_estimate_is_unbiased() -> None:
    """Averaged over many draws, sum(weight * grad log pi) is the gradient of expected reward minus kl * KL."""
    torch.manual_seed(0)
    logits_V = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64, requires_grad=True)
    reference_V = torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64).log_softmax(0)
    reward_V = torch.tensor([1.0, 0.0, 2.0])
    logprob_V = logits_V.log_softmax(0)
    exact = (logprob_V.exp() * (reward_V - 0.3 * (logprob_V - reference_V))).sum()
    (expected,) = torch.autograd.grad(exact, logits_V, retain_graph=True)
    draws = 200_000
    ids_PN = torch.multinomial(logprob_V.exp().detach(), 2 * draws, replacement=True).view(draws, 2)
    draw = Draw(
        [[int(i)] for i in ids_PN.flatten()],
        reward_V[ids_PN],
        logprob_V.detach()[ids_PN],
        initial_logprob_PN=reference_V[ids_PN],
    )
    sequences, _ = Reinforce(_config(kl=0.3)).weigh(Rollouts([[2]] * draws, draw))
    weight_V = torch.zeros(3, dtype=torch.float64)
    for sequence in sequences:
        weight_V[sequence.completion[0]] += sequence.weight
    (got,) = torch.autograd.grad((weight_V * logprob_V).sum(), logits_V)
    assert torch.allclose(got, expected, atol=0.01)


def test_completions_of_other_weights_are_corrected_and_the_correction_is_truncated() -> None:
    """By enumeration: drawn from q and corrected, the expected gradient is that of draws from p; a cap bounds it."""
    torch.manual_seed(1)
    logits_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    logprob_V, drawn_V = logits_V.log_softmax(0), torch.randn(5, dtype=torch.float64).log_softmax(0)
    reward_V = torch.rand(5, dtype=torch.float64)
    (expected,) = torch.autograd.grad((logprob_V.exp() * reward_V).sum(), logits_V, retain_graph=True)
    importance_V1 = (logprob_V - drawn_V).detach().exp()[:, None]
    draw = Draw([[i] for i in range(5)], reward_V[:, None], importance_PN=importance_V1)
    weight_V1, metrics = corrected(reward_V[:, None], draw, cap=1e9)
    (got,) = torch.autograd.grad((drawn_V.exp() * weight_V1[:, 0] * logprob_V).sum(), logits_V)
    assert torch.allclose(got, expected, atol=1e-12) and metrics["truncated"] == 0
    cap = importance_V1.median().item()
    weight_V1, metrics = corrected(reward_V[:, None], draw, cap)
    assert torch.equal(weight_V1, reward_V[:, None] * importance_V1.clamp(max=cap))
    assert metrics["truncated"] == pytest.approx(0.4) and metrics["importance"] == importance_V1.mean().item()
    assert torch.equal(corrected(reward_V[:, None], draw, None)[0], reward_V[:, None])
