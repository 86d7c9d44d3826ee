"""Arithmetic on task vectors: SLERP and its fold over many, and interpolation (WARP, Rame et al. 2024).

A task vector is the difference between trained weights and the weights they started from. Everything here is a function
of plain numbers and flat vectors (numpy arrays or torch tensors); `gemsmith.weights.merge` reads them from checkpoints.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Vector: TypeAlias = Any
"""A numpy array or a torch tensor; functions return the type that they get."""

SMALLEST_SINE = 1e-6  # below it SLERP and LERP agree to float32 precision, and the quotient of sines does not exist


def angle_between(dot: float, norm_a: float, norm_b: float) -> float | None:
    """Return the angle of two vectors from their inner product and norms, in [0, pi]; None if one of them is zero."""
    if norm_a == 0.0 or norm_b == 0.0:
        return None
    return math.acos(max(-1.0, min(1.0, dot / (norm_a * norm_b))))


def slerp_shares(angle: float | None, rate: float) -> tuple[float, float]:
    """Return the coefficients of two task vectors at `angle` radians.

    They are sin((1 - rate) angle) / sin(angle) and sin(rate angle) / sin(angle). Where the angle is undefined, 0 or pi,
    they are those of LERP: 1 - rate and rate.
    """
    if angle is None or math.sin(angle) < SMALLEST_SINE:
        return 1.0 - rate, rate
    return math.sin((1.0 - rate) * angle) / math.sin(angle), math.sin(rate * angle) / math.sin(angle)


def lerp_shares(angle: float | None, rate: float) -> tuple[float, float]:
    """Return the coefficients of two task vectors on the straight line between them, at any angle."""
    return 1.0 - rate, rate


def gram_matrix(vectors: Sequence[ArrayLike]) -> list[list[float]]:
    """Return the inner products of every two of M flat vectors, [M][M], summed in float64."""
    wide = [np.asarray(vector, np.float64) for vector in vectors]
    gram = [[0.0] * len(wide) for _ in wide]
    for i, first in enumerate(wide):
        for j, second in enumerate(wide[: i + 1]):
            gram[i][j] = gram[j][i] = float(
                np.einsum("i,i->", first, second)
            )  # no BLAS: its threads would wait in ours
    return gram


def fold(
    gram: Sequence[Sequence[float]], shares_at: Callable[[float | None, float], tuple[float, float]]
) -> tuple[list[float], list[float | None]]:
    """Merge M task vectors one after another: the merge of the first m - 1 with the m-th at rate 1/m (Eq. 26).

    The fold is a linear combination of the vectors, so their inner products are enough to compute it.

    Args:
        gram: inner products of the M task vectors, [M][M].
        shares_at: function of an angle and a rate that returns two coefficients: `slerp_shares`, whose fold depends on
            the order, or `lerp_shares`, whose fold is the average.

    Returns:
        The M coefficients, and the M - 1 angles between each merge and the next vector, in radians (None for a zero
        vector).
    """
    shares = [1.0]
    angles: list[float | None] = []
    for new in range(1, len(gram)):
        dot = math.fsum(share * gram[m][new] for m, share in enumerate(shares))
        angle = angle_between(dot, combined_norm(shares, gram), math.sqrt(gram[new][new]))
        share_merged, share_new = shares_at(angle, 1.0 / (new + 1))
        shares = [share_merged * share for share in shares] + [share_new]
        angles.append(angle)
    return shares, angles


def combined_norm(shares: Sequence[float], gram: Sequence[Sequence[float]]) -> float:
    """Return the norm of the combination of vectors with the given coefficients, from their inner products."""
    square = math.fsum(a * b * gram[i][j] for i, a in enumerate(shares) for j, b in enumerate(shares))
    return math.sqrt(max(0.0, square))


def lerp(start: Vector, end: Vector, rate: float) -> Vector:
    """Return (1 - rate) * start + rate * end: `start` exactly at 0, `end` exactly at 1; a rate above 1 extrapolates
    (LITI).
    """
    if rate in (0.0, 1.0):
        return end if rate else start
    return (1.0 - rate) * start + rate * end
