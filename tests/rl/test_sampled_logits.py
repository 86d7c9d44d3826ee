import pytest
import torch

from policy import head
from policy.head import Targets, weighted_sum
from rl.sampled_logits import ExactTargets, draw_targets


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


@pytest.mark.parametrize("mode", ["gumbel_renorm", "multinomial_counts"])
def test_a_seeded_token_draws_the_same_whatever_is_beside_it(mode: str) -> None:
    teacher_TV = torch.randn(6, 50).log_softmax(-1)
    together, _ = draw_targets(teacher_TV, 12, mode, seeds=[5, 6, 7, 8, 5, 9])
    alone, _ = draw_targets(teacher_TV[[3, 1]], 12, mode, seeds=[8, 6])
    assert together[[3, 1]].tolist() == alone.tolist()
    assert draw_targets(teacher_TV[[1, 1]], 12, mode, seeds=[6, 7])[0].unique(dim=0).shape[0] == 2


def sampled_cross_entropy(student_TV: torch.Tensor, ids_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    """Of logits that are there: those of an identity matrix for a head."""
    total, _ = weighted_sum(
        student_TV, torch.eye(student_TV.shape[1]), Targets.given(ids_TK, weights_TK), torch.ones(len(student_TV))
    )
    return -total


def test_all_entries_drawn_is_full_cross_entropy_and_the_divergence_is_that_of_the_whole_vocabulary(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(head, "CHUNK", 2 * 20)  # five tokens in three chunks
    teacher_TD, student_TD, weight_VD = torch.randn(5, 8), torch.randn(5, 8), torch.randn(20, 8)
    teacher = ExactTargets(
        lambda rows: (teacher_TD[rows] @ weight_VD.t() / 0.7).log_softmax(-1), torch.arange(5), 20, "gumbel_renorm"
    )
    total, scores = weighted_sum(student_TD.requires_grad_(), weight_VD, Targets(teacher.choose), torch.ones(5))
    teacher_TV = (teacher_TD @ weight_VD.t() / 0.7).log_softmax(-1)
    full_T = -(teacher_TV.exp() * (student_TD @ weight_VD.t()).log_softmax(-1)).sum(-1)
    assert -total.item() == pytest.approx(full_T.sum().item(), rel=1e-5)
    entropy_T = -(teacher_TV.exp() * teacher_TV).sum(-1)
    assert torch.allclose(teacher.divergence(scores), full_T - entropy_T, atol=1e-5)
    assert teacher.best_M.tolist() == teacher_TV.argmax(-1).tolist()
    assert torch.allclose(teacher.own_M, teacher_TV.diagonal())


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
    loss = sampled_cross_entropy(logits_V.repeat(20_000, 1), ids_TK, weights_TK) / 20_000
    (got,) = torch.autograd.grad(loss, logits_V)
    assert torch.allclose(got, expected, atol=0.01)
