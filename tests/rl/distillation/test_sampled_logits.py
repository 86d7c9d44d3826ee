import pytest
import torch

from gemsmith.policy.head import tiled_matmul
from gemsmith.policy.head.vocabulary_head import Targets, weighted_sum
from gemsmith.rl.distillation.sampled_logits import ExactTargets, draw_targets
from gemsmith.rl.teachers.config import SampledConfig


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
    """Return the cross-entropy for given logits, by using an identity matrix as the head."""
    total, _ = weighted_sum(
        student_TV, torch.eye(student_TV.shape[1]), Targets.given(ids_TK, weights_TK), torch.ones(len(student_TV))
    )
    return -total


def test_all_entries_drawn_is_full_cross_entropy_and_the_divergence_is_that_of_the_whole_vocabulary(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(tiled_matmul, "CHUNK", 2 * 20)  # five tokens in three chunks
    monkeypatch.setattr(tiled_matmul, "CPU_PART", 20)  # one row at a time
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


def _mandelbrot(size: int) -> torch.Tensor:
    """Return log p for p proportional to (rank + 2.7)^-1.6: entropy 4.3 nats, of which 0.02 beyond rank 16,384."""
    return ((torch.arange(1, size + 1, dtype=torch.float64) + 2.7).log() * -1.6).log_softmax(0)


def test_bias_on_the_head_of_a_vocabulary() -> None:
    """Compare the target mass on the 16 most likely entries with their true mass, at 256 entries per token.

    Ratios for 262,144 entries: 1.12 for gumbel_renorm, 1.08 for topk, 1.00 for multinomial_counts. Sampling with
    replacement without counts would give 1.26; no mode does this.
    """
    teacher_V = _mandelbrot(16_384).float()
    true = teacher_V[:16].exp().sum()
    ids, weights = {}, {}
    for mode in ("gumbel_renorm", "multinomial_counts", "topk"):
        ids[mode], weights[mode] = draw_targets(teacher_V.expand(300, -1), 256, mode, range(300))
    found = {mode: ((weights[mode] * (ids[mode] < 16)).sum(-1) / true).mean().item() for mode in ids}
    forgetful = [row.unique() for row in ids["multinomial_counts"]]
    shares = [teacher_V[row].softmax(0)[row < 16].sum() / true for row in forgetful]
    assert found["topk"] == pytest.approx(1 / teacher_V[:256].exp().sum().item(), abs=1e-3)
    assert found["topk"] == pytest.approx(1.07, abs=0.01)
    assert found["gumbel_renorm"] == pytest.approx(1.11, abs=0.015)
    assert found["multinomial_counts"] == pytest.approx(1.0, abs=0.015)
    assert sum(shares) / 300 == pytest.approx(1.25, abs=0.03)


def test_only_counts_reach_the_tail() -> None:
    """Compare the target mass beyond the 4,096 most likely of 16,384 entries with their true mass."""
    teacher_V = _mandelbrot(16_384).float()
    true = teacher_V[4096:].exp().sum()
    ratio = {}
    for mode in ("gumbel_renorm", "multinomial_counts", "topk"):
        ids_TK, weights_TK = draw_targets(teacher_V.expand(600, -1), 256, mode, range(600))
        ratio[mode] = ((weights_TK * (ids_TK >= 4096)).sum(-1) / true).mean().item()
    assert ratio["topk"] == 0.0
    assert ratio["gumbel_renorm"] < 0.1
    assert ratio["multinomial_counts"] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("mode", "unbiased"), [("multinomial_counts", True), ("gumbel_renorm", False), ("topk", False)]
)
def test_the_expected_gradient_is_that_of_full_cross_entropy_by_counts_alone(mode: str, unbiased: bool) -> None:
    torch.manual_seed(0)
    teacher_V, logits_V = torch.randn(12).log_softmax(-1), torch.randn(12, requires_grad=True)
    full = -(teacher_V.exp() * logits_V.log_softmax(-1)).sum()
    (expected,) = torch.autograd.grad(full, logits_V)
    ids_TK, weights_TK = draw_targets(teacher_V.repeat(20_000, 1), 4, mode)
    loss = sampled_cross_entropy(logits_V.repeat(20_000, 1), ids_TK, weights_TK) / 20_000
    (got,) = torch.autograd.grad(loss, logits_V)
    # standard error of a component with counts: sqrt(p (1 - p) / 4 / 20,000) < 0.002
    assert ((got - expected).abs().max() < 0.01) == unbiased


def test_the_default_mode_teaches_the_teachers_distribution_and_the_others_do_not() -> None:
    """Compare the mean target of 4,000 tokens, which a student of full capacity learns, with the teacher.

    benchmarks/sampled_modes.py trains such students, at 64 of 2,000 entries of a Zipf law as here.
    """
    teacher_V = _zipf(2_000, 1.2).float()
    found = {}
    for mode in ("multinomial_counts", "gumbel_renorm", "topk"):
        mean_V = torch.zeros(2_000)
        for start in range(0, 4_000, 500):
            ids_TK, weights_TK = draw_targets(teacher_V.expand(500, -1), 64, mode, range(start, start + 500))
            mean_V.index_add_(0, ids_TK.flatten(), weights_TK.flatten() / 4_000)
        found[mode] = [
            float(mean_V[part].sum() / teacher_V[part].exp().sum()) for part in (slice(16), slice(1000, None))
        ]
    assert found[SampledConfig().mode] == pytest.approx([1.0, 1.0], abs=0.03)
    assert found["gumbel_renorm"] == pytest.approx([1.455, 0.008], abs=0.003)
    assert found["topk"] == pytest.approx([1.316, 0.0], abs=0.001)
