import pytest
import torch

from rl.sampled_logits import draw_targets, kl_divergence, sampled_cross_entropy


def _zipf(size: int, exponent: float) -> torch.Tensor:
    return (-exponent * torch.arange(1, size + 1, dtype=torch.float64).log()).log_softmax(0)


@pytest.mark.parametrize("mode", ["gumbel_renorm", "multinomial_counts", "topk"])
def test_weights_sum_to_one_over_k_entries(mode: str) -> None:
    ids_TK, weights_TK = draw_targets(torch.randn(7, 50).log_softmax(-1), 12, mode)
    assert ids_TK.shape == weights_TK.shape == (7, 12)
    assert torch.allclose(weights_TK.sum(-1), torch.ones(7))


def test_without_replacement_no_entry_is_drawn_twice() -> None:
    ids_TK, _ = draw_targets(_zipf(50, 1.0).repeat(20, 1), 30, "gumbel_renorm")
    assert all(len(set(row)) == 30 for row in ids_TK.tolist())


def test_all_entries_drawn_is_full_cross_entropy() -> None:
    torch.manual_seed(0)
    teacher_TV, student_TV = torch.randn(5, 20).log_softmax(-1), torch.randn(5, 20)
    loss_T = sampled_cross_entropy(student_TV, *draw_targets(teacher_TV, 20, "gumbel_renorm"))
    full_T = -(teacher_TV.exp() * student_TV.log_softmax(-1)).sum(-1)
    assert torch.allclose(loss_T, full_T, atol=1e-5)
    entropy_T = -(teacher_TV.exp() * teacher_TV).sum(-1)
    assert torch.allclose(kl_divergence(teacher_TV, student_TV), full_T - entropy_T, atol=1e-5)


@pytest.mark.parametrize(("mode", "low", "high"), [("multinomial_counts", 0.97, 1.03), ("gumbel_renorm", 1.10, 1.16)])
def test_bias_on_the_head_of_a_large_vocabulary(mode: str, low: float, high: float) -> None:
    """Target mass on the 16 likeliest of 262,144 entries (Zipf, 3.8 nats) over the true mass."""
    torch.manual_seed(0)
    teacher_V = _zipf(262_144, 1.4).float()
    ratios = []
    for _ in range(40):
        ids_TK, weights_TK = draw_targets(teacher_V[None], 256, mode)
        ratios.append((weights_TK * (ids_TK < 16)).sum().item() / teacher_V[:16].exp().sum().item())
    assert low < sum(ratios) / len(ratios) < high


def test_the_expected_gradient_by_counts_is_that_of_full_cross_entropy() -> None:
    torch.manual_seed(0)
    teacher_V, logits_V = torch.randn(12).log_softmax(-1), torch.randn(12, requires_grad=True)
    full = -(teacher_V.exp() * logits_V.log_softmax(-1)).sum()
    (expected,) = torch.autograd.grad(full, logits_V)
    ids_TK, weights_TK = draw_targets(teacher_V.repeat(20_000, 1), 4, "multinomial_counts")
    loss = sampled_cross_entropy(logits_V.repeat(20_000, 1), ids_TK, weights_TK).mean()
    (got,) = torch.autograd.grad(loss, logits_V)
    assert torch.allclose(got, expected, atol=0.01)
