"""The algorithms against numbers that their mathematics gives: J-BOND, Best-of-N, SLERP, sampled-logit distillation."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.fidelity.toys.best_of_n_law import best_of_n_logprob, kl
from benchmarks.results import Row
from gemsmith.rl.algorithms.best_of_n import kl_bound
from gemsmith.rl.algorithms.bond import jbond_reward, policy_weights
from gemsmith.rl.distillation.sampled_logits import Mode, draw_targets
from gemsmith.weights.vectors import angle_between, combined_norm, fold, gram_matrix, slerp_shares

GEMMA_VOCABULARY = 262_144


def bond_rows(draws: int) -> Iterator[Row]:
    """r_J at several quantiles: E = -log 16 (1 - p)^2, which meets log p at the median (BOND, eq. 17)."""
    generator = torch.Generator().manual_seed(0)
    anchors = torch.rand(draws, 2, generator=generator)
    for p in (0.1, 0.25, 0.5, 0.75, 0.9):
        found = jbond_reward(torch.full((draws,), p), anchors).mean().item()
        expected = -math.log(16) * (1 - p) ** 2
        error = math.log(16) * (1 - p) * math.sqrt(1 - (1 - p) ** 2) / math.sqrt(draws)
        yield Row(f"E[r_J] at quantile {p}", found, "nats", "-log 16 (1 - p)^2", expected, tolerance=5 * error)
    levels = (anchors * 5).floor()  # five tied levels; the sample stands on the second: P(anchor above) = 0.6
    tied = jbond_reward(torch.ones(draws), levels).mean().item()
    error = 5 * math.log(16) * 0.5 / math.sqrt(draws)
    yield Row("E[r_J] with ties", tied, "nats", "-log 16 * 0.6^2", -math.log(16) * 0.36, tolerance=error)
    reward = torch.rand(draws, generator=generator)
    same = jbond_reward(reward, anchors) == jbond_reward((5 * reward).exp(), (5 * anchors).exp())
    yield Row("r_J unchanged by r to exp(5 r)", same.float().mean().item(), "share", "all", 1.0, tolerance=0.0)


def regulariser_rows() -> Iterator[Row]:
    """Descending the gamma term descends KL(pi || anchor): Algorithm 2 prints its sign the other way round."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(12, generator=generator, dtype=torch.float64, requires_grad=True)
    anchor = torch.randn(12, generator=generator, dtype=torch.float64).log_softmax(0)
    logprobs = logits.log_softmax(0)
    ratio = (logprobs - anchor).detach()
    weight = policy_weights(torch.zeros(12, dtype=torch.float64), ratio, beta=0.0, gamma=1.0)
    (ours,) = torch.autograd.grad(-(logprobs.detach().exp() * weight * logprobs).sum(), logits, retain_graph=True)
    (exact,) = torch.autograd.grad((logprobs.exp() * (logprobs - anchor)).sum(), logits)
    cosine = torch.nn.functional.cosine_similarity(ours, exact, dim=0).item()
    yield Row("cos(gamma term, grad KL(pi || anchor))", cosine, "", "exact gradient", 1.0, tolerance=1e-9)


def best_of_n_rows() -> Iterator[Row]:
    """Best-of-2 twice is Best-of-4, and KL(BoN || ref) stays below log N - (N - 1) / N."""
    generator = torch.Generator().manual_seed(2)
    probability = torch.rand(12, generator=generator, dtype=torch.float64)
    reference = (probability / probability.sum()).log()
    reward = torch.randint(0, 6, (12,), generator=generator)
    twice = best_of_n_logprob(best_of_n_logprob(reference, reward, 2), reward, 2)
    gap = (twice.exp() - best_of_n_logprob(reference, reward, 4).exp()).abs().max().item()
    yield Row("Best-of-2 of Best-of-2 minus Best-of-4", gap, "", "identity", 0.0, tolerance=1e-12)
    atoms = 2_000
    even = torch.full((atoms,), -math.log(atoms), dtype=torch.float64)
    found = kl(best_of_n_logprob(even, torch.arange(atoms), 16), even).item()
    yield Row("KL(Best-of-16 || ref), fine-grained", found, "nats", "log 16 - 15/16", kl_bound(16), tolerance=0.005)


def slerp(first: Tensor, second: Tensor, rate: float) -> tuple[Tensor, float | None]:
    """Spherical interpolation of two task vectors, and their angle.

    Args:
        first: flat float32 task vector, reached at rate 0.
        second: flat float32 task vector of the same length, reached at rate 1.
        rate: position between the two, in [0, 1].

    Returns:
        The interpolated vector, and the angle in radians (None if a vector is zero). Vectors of equal norm keep it.
    """
    gram = gram_matrix([first, second])
    angle = angle_between(gram[0][1], math.sqrt(gram[0][0]), math.sqrt(gram[1][1]))
    share_first, share_second = slerp_shares(angle, rate)
    return share_first * first + share_second * second, angle


def slerp_rows() -> Iterator[Row]:
    """SLERP keeps the norm of task vectors, LERP does not (WARP, lemma 2); the fold over M orthonormal vectors."""
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(4096, generator=generator)
    second = torch.randn(4096, generator=generator)
    second *= first.norm() / second.norm()
    merged, angle = slerp(first, second, 0.3)
    assert angle is not None
    yield Row("norm of SLERP over norm", (merged.norm() / first.norm()).item(), "", "kept", 1.0, tolerance=1e-5)
    lemma = math.sqrt(1 - 2 * (1 - math.cos(angle)) * (0.3 - 0.3**2))
    lerp = (0.7 * first + 0.3 * second).norm() / first.norm()
    yield Row("norm of LERP over norm", lerp.item(), "", "lemma 2", lemma, tolerance=1e-5)
    uneven, _ = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    yield Row("norm of SLERP, norms 2 and 1 at 90 degrees", uneven.norm().item(), "", "paper", 1.58, tolerance=0.005)
    for m, expected in ((3, (0.612, 0.612, 0.5)), (5, (0.538, 0.538, 0.439, 0.364, 0.309))):
        gram = torch.eye(m).tolist()
        shares, _ = fold(gram, slerp_shares)
        gap = max(abs(share - value) for share, value in zip(shares, expected, strict=True))
        yield Row(f"shares of {m} orthonormal runs, gap", gap, "", "eq. 26", 0.0, tolerance=0.001)
        yield Row(f"norm of {m} orthonormal runs", combined_norm(shares, gram), "", "kept", 1.0, tolerance=1e-9)


def sampled_logit_rows(tokens: int) -> Iterator[Row]:
    """Mass that 256 sampled targets put on the teacher's top 16, over the true mass, on Gemma's vocabulary.

    The literal recipe (without replacement, renormalised) sharpens the head; counts do not. The teacher is a
    Zipf-Mandelbrot law, probability proportional to (rank + 2.7)^-1.6: 4.3 nats. `topk` has an exact value.
    """
    ranks = torch.arange(1, GEMMA_VOCABULARY + 1, dtype=torch.float64)
    teacher = ((ranks + 2.7).log() * -1.6).log_softmax(0)
    probability = teacher.exp()
    yield Row("entropy of the teacher", -(probability * teacher).sum().item(), "nats", "reference", 4.3, tolerance=0.05)
    exact = 1 / probability[:256].sum().item()
    expected: dict[Mode, float] = {"gumbel_renorm": 1.12, "multinomial_counts": 1.0, "topk": exact}
    for mode, value in expected.items():
        ids_TK, weights_TK = draw_targets(teacher.float().expand(tokens, -1), 256, mode, range(tokens))
        ratio_T = (weights_TK * (ids_TK < 16)).sum(dim=1) / probability[:16].sum()
        error = 5 * ratio_T.std().item() / math.sqrt(tokens)
        rounding = {"gumbel_renorm": 0.005, "multinomial_counts": 0.0, "topk": 1e-4}[mode]
        name = f"head mass over true mass, {mode}"
        yield Row(name, ratio_T.mean().item(), "", "reference", value, tolerance=error + rounding)


def identity_rows(quick: bool) -> list[Row]:
    """All identities; with `quick`, from fewer draws and with tolerances as much wider."""
    rows = list(bond_rows(200_000 if quick else 4_000_000))
    rows += [*regulariser_rows(), *best_of_n_rows(), *slerp_rows()]
    return [*rows, *sampled_logit_rows(16 if quick else 128)]
