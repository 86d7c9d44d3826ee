"""SLERP against the lemmas and figures of the WARP paper (PAPERS.md sections 3 and 6)."""

import math

import pytest
import torch

from benchmarks.fidelity.identities import slerp
from gemsmith.weights.vectors import (
    combined_norm,
    fold,
    gram_matrix,
    lerp,
    lerp_shares,
    slerp_shares,
)


def test_slerp_of_equal_norms_keeps_the_norm():
    torch.manual_seed(0)
    first, second = torch.randn(2, 5000)
    first, second = 3 * first / first.norm(), 3 * second / second.norm()
    for rate in (0.1, 0.5, 0.7):
        merged, angle = slerp(first, second, rate)
        assert merged.norm().item() == pytest.approx(3.0, abs=1e-5)
        assert math.degrees(angle) == pytest.approx(90, abs=5)  # random directions are nearly orthogonal


def test_lerp_of_equal_norms_shrinks_as_lemma_2_says():
    cosine = 0.040943  # at rate 0.5: sqrt(1 - 2 (1 - cos) / 4) = sqrt((1 + cos) / 2) = 0.721437
    first = torch.tensor([1.0, 0.0])
    second = torch.tensor([cosine, math.sqrt(1 - cosine**2)])
    assert lerp(first, second, 0.5).norm().item() == pytest.approx(math.sqrt((1 + cosine) / 2), abs=1e-6)
    assert lerp(first, second, 0.5).norm().item() == pytest.approx(0.721437, abs=1e-6)
    assert slerp(first, second, 0.5)[0].norm().item() == pytest.approx(1.0, abs=1e-6)


def test_slerp_of_unequal_norms_at_a_right_angle():
    merged, _ = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    assert merged.norm().item() == pytest.approx(math.sqrt(0.5) * math.sqrt(2**2 + 1**2), abs=1e-6)  # 1.58


def test_slerp_ends_at_its_two_vectors():
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([-0.5, 1.0])
    assert torch.allclose(slerp(first, second, 0.0)[0], first)
    assert torch.allclose(slerp(first, second, 1.0)[0], second)


@pytest.mark.parametrize("count, shares", [(3, (0.612, 0.612, 0.500)), (5, (0.538, 0.538, 0.439, 0.364, 0.309))])
def test_fold_of_orthonormal_vectors_has_the_papers_coefficients(count, shares):
    found, angles = fold(torch.eye(count).tolist(), slerp_shares)
    assert found == pytest.approx(shares, abs=5e-4)
    assert math.fsum(share**2 for share in found) == pytest.approx(1.0)
    assert angles == pytest.approx([math.pi / 2] * (count - 1))


def test_fold_equals_slerping_the_vectors_one_after_another():
    torch.manual_seed(0)
    vectors = torch.randn(4, 300) + torch.randn(300)
    plain = vectors[0]
    for m, vector in enumerate(vectors[1:], start=2):
        plain, _ = slerp(plain, vector, 1 / m)
    shares, _ = fold(gram_matrix(list(vectors)), slerp_shares)
    assert torch.allclose(torch.tensor(shares) @ vectors, plain, atol=1e-5)


@pytest.mark.parametrize("angle", [None, 0.0, 1e-9, math.pi])
def test_where_there_is_no_angle_slerp_is_lerp(angle):
    assert slerp_shares(angle, 0.25) == (0.75, 0.25)


def test_parallel_and_zero_vectors_give_finite_results():
    vector = torch.tensor([1.0, -2.0])
    assert torch.allclose(slerp(vector, 3 * vector, 0.5)[0], 2 * vector)
    merged, angle = slerp(vector, torch.zeros(2), 0.5)
    assert angle is None and torch.equal(merged, vector / 2)


def test_lerp_is_exact_at_its_ends_and_goes_beyond_them():
    torch.manual_seed(0)
    start, end = torch.randn(2, 1000)
    assert torch.equal(lerp(start, end, 0.0), start)
    assert torch.equal(lerp(start, end, 1.0), end)
    assert torch.allclose(lerp(start, end, 1.5), end + 0.5 * (end - start), atol=1e-6)


def test_a_fold_along_straight_lines_is_the_average():
    shares, angles = fold(torch.eye(3).tolist(), lerp_shares)
    assert shares == pytest.approx([1 / 3] * 3)
    assert angles[0] == pytest.approx(math.pi / 2)  # orthogonal vectors
    assert combined_norm(shares, torch.eye(3).tolist()) == pytest.approx(1 / math.sqrt(3))  # SLERP's would be 1
