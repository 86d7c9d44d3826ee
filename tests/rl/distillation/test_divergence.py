import math
import warnings

import pytest
import torch
from torch import Tensor

from gemsmith.policy.head import tiled_matmul
from gemsmith.policy.head.vocabulary_head import weighted_sum
from gemsmith.rl.distillation.divergence import Divergence, WholeDivergence, divergence_and_gradient
from gemsmith.rl.distillation.sampled_logits import ExactTargets

KINDS: list[tuple[Divergence, float]] = [("forward", 0.5), ("reverse", 0.5), ("jsd", 0.1), ("jsd", 0.5), ("jsd", 0.9)]


def plain(teacher_CV: Tensor, student_CV: Tensor, kind: str, beta: float) -> Tensor:
    """Return the divergence by its definition, differentiable by autograd."""
    p, q = teacher_CV.exp(), student_CV.exp()
    m = beta * p + (1 - beta) * q
    if kind == "jsd":
        kl_p, kl_q = (p * (teacher_CV - m.log())).sum(-1), (q * (student_CV - m.log())).sum(-1)
        return beta * kl_p + (1 - beta) * kl_q
    gap = teacher_CV - student_CV
    return (p * gap).sum(-1) if kind == "forward" else -(q * gap).sum(-1)


def _pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return (3 * torch.randn(4, 30, dtype=torch.float64)).log_softmax(-1), torch.randn(4, 30, dtype=torch.float64)


def test_values_of_two_entries() -> None:
    teacher, student = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    forward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    reverse = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    # M = 0.1 * 0.5 + 0.9 * 0.25 = 0.275, and 0.725
    jsd = 0.1 * (0.5 * math.log(0.5 / 0.275) + 0.5 * math.log(0.5 / 0.725))
    jsd += 0.9 * (0.25 * math.log(0.25 / 0.275) + 0.75 * math.log(0.75 / 0.725))
    for kind, beta, expected in (("forward", 0.5, forward), ("reverse", 0.5, reverse), ("jsd", 0.1, jsd)):
        assert divergence_and_gradient(teacher, student, kind, beta)[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_the_gradient_is_autograds_and_that_of_finite_differences(kind: Divergence, beta: float) -> None:
    teacher_CV, logits_CV = _pair()
    value_C, gradient_CV = divergence_and_gradient(teacher_CV, logits_CV.log_softmax(-1), kind, beta)
    asked_CV = logits_CV.clone().requires_grad_()
    expected_C = plain(teacher_CV, asked_CV.log_softmax(-1), kind, beta)
    (expected_CV,) = torch.autograd.grad(expected_C.sum(), asked_CV)
    assert torch.allclose(value_C, expected_C, atol=1e-12)
    assert torch.allclose(gradient_CV, expected_CV, atol=1e-12)
    step = torch.zeros_like(logits_CV)
    step[:, 7] = 1e-5
    up, down = (plain(teacher_CV, (logits_CV + s).log_softmax(-1), kind, beta) for s in (step, -step))
    assert torch.allclose(gradient_CV[:, 7], (up - down) / 2e-5, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_generalised_divergence_is_trls_at_every_beta(beta: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.gkd import GKDTrainer
    teacher_CV, logits_CV = _pair()
    ours = divergence_and_gradient(teacher_CV, logits_CV.log_softmax(-1), "jsd", beta)[0].mean()
    trls = GKDTrainer.generalized_jsd_loss(logits_CV, teacher_CV, beta=beta)
    assert ours.item() == pytest.approx(trls.item(), rel=1e-6)


@pytest.mark.parametrize(("beta", "limit"), [(1e-9, "forward"), (1 - 1e-9, "reverse")])
def test_jsd_over_its_small_share_tends_to_the_limit_that_is_taken_at_0_and_1(beta: float, limit: Divergence) -> None:
    teacher_CV, logits_CV = _pair()
    student_CV = logits_CV.log_softmax(-1)
    near_C, near_CV = divergence_and_gradient(teacher_CV, student_CV, "jsd", beta)
    at_C, at_CV = divergence_and_gradient(teacher_CV, student_CV, "jsd", round(beta))
    share = min(beta, 1 - beta)
    assert torch.allclose(near_C / share, at_C, rtol=1e-3)
    assert torch.allclose(near_CV / share, at_CV, atol=1e-3)
    assert torch.equal(at_C, divergence_and_gradient(teacher_CV, student_CV, limit)[0])


def test_jsd_of_disjoint_supports_is_the_entropy_of_beta() -> None:
    teacher, student = torch.tensor([[60.0, 0.0]]).log_softmax(-1), torch.tensor([[0.0, 60.0]]).log_softmax(-1)
    assert divergence_and_gradient(teacher, student, "jsd", 0.5)[0].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("kind", "beta"), [*KINDS, ("jsd", 0.0), ("jsd", 1.0)])
def test_through_the_head_chunk_by_chunk_it_is_plain_autograd(
    kind: Divergence, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    monkeypatch.setattr(tiled_matmul, "CHUNK", 3 * 20)  # five tokens in two chunks
    monkeypatch.setattr(tiled_matmul, "CPU_PART", 2 * 20)  # two rows at a time
    teacher_MV, hidden_MD, weight_VD = torch.randn(5, 20).log_softmax(-1), torch.randn(5, 8), torch.randn(20, 8)
    coefficient_M = torch.tensor([1.0, 2.0, 0.5, 0.0, -1.0])
    hidden_MD.requires_grad_()
    weight_VD.requires_grad_()
    whole = WholeDivergence(ExactTargets(lambda rows: teacher_MV[rows].clone(), torch.arange(5), 4, "topk"), kind, beta)
    total, scores = weighted_sum(hidden_MD, weight_VD, whole.objective, coefficient_M)
    got = torch.autograd.grad(total, (hidden_MD, weight_VD))

    student_MV = (hidden_MD @ weight_VD.t()).log_softmax(-1)
    meant = kind if kind != "jsd" or 0 < beta < 1 else ("forward", "reverse")[int(beta)]
    value_M = plain(teacher_MV, student_MV, meant, beta)
    expected = torch.autograd.grad(-(coefficient_M * value_M).sum(), (hidden_MD, weight_VD))
    assert torch.allclose(scores.logprobs, -value_M, atol=1e-5)
    assert all(torch.allclose(g, e, atol=1e-5) for g, e in zip(got, expected, strict=True))
    assert torch.allclose(whole.watched(scores).kl_M, plain(teacher_MV, student_MV, "forward", 0.5), atol=1e-5)
    assert torch.allclose(scores.entropy, -(student_MV.exp() * student_MV).sum(-1), atol=1e-5)
    assert scores.best.tolist() == (student_MV.argmax(-1) == teacher_MV.argmax(-1)).tolist()
