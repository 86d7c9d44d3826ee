"""Moving average of the product B A of low-rank adapters, kept as factors of a higher rank.

The average of the effective weights is the average of the products (WARP section 3.1, BOND Algorithm 2 step 5), and
not the product of the averaged factors: that misses the covariance of A and B, which is 10% to 19% of the distance
between the average and the live weights (`python -m benchmarks.adapter_average`). A product's average has a growing
rank, but its singular values fall fast, as the factors move slowly.
"""

import re

import torch
from torch import Tensor

from gemsmith.policy.config import average_rank

_LEFT = re.compile(r"\.lora_(embedding_)?A\.")


def adapter_pairs(names: list[str]) -> list[tuple[str, str]]:
    """Return the names of the factors B and A of each adapter among the parameters of a peft model."""
    pairs = [(_LEFT.sub(lambda found: f".lora_{found[1] or ''}B.", name), name) for name in names if _LEFT.search(name)]
    return [(b, a) for b, a in pairs if b in names]


def averaged_product(
    left: Tensor, right: Tensor, b: Tensor, a: Tensor, rate: float, keep: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return factors of (1 - rate) left @ right + rate b @ a.

    Exact, up to rounding, while the rank allows it; afterwards the smallest singular values are left out, so that the
    result is the nearest matrix of the kept rank.

    Args:
        left: factor of the average before, [O, K], float32.
        right: the other factor, [K, I].
        b: adapter's factor B, [O, R].
        a: adapter's factor A, [R, I].
        rate: weight of the adapter's product.
        keep: largest K; None: `average_rank(R)`.

    Returns:
        The factors, [O, K] and [K, I], with K at most `keep` and the sizes of the matrix.
    """
    if rate == 1.0 or not (b.isfinite().all() and a.isfinite().all()):
        return b.clone(), a.clone()
    keep = min(keep or average_rank(len(a)), len(b), a.shape[1])
    left_OK, right_KI = torch.cat([(1 - rate) * left, rate * b], dim=1), torch.cat([right, a])
    if len(right_KI) <= keep:
        return left_OK, right_KI
    # The singular values of the product are those of a small matrix between two orthonormal bases.
    basis_OK, left_KK = torch.linalg.qr(left_OK)
    basis_IK, right_KK = torch.linalg.qr(right_KI.t())
    u, values, v = torch.linalg.svd(left_KK @ right_KK.t())
    root = values[:keep].sqrt()  # half to each factor
    return (basis_OK @ u[:, :keep]) * root, root.unsqueeze(-1) * (v[:keep] @ basis_IK.t())
