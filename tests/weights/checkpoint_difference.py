"""Difference of two checkpoint folders, for tests."""

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """Difference of two checkpoints.

    Attributes:
        largest: largest absolute difference of two weights.
        relative_norm: norm of the difference over the norm of the first checkpoint.
        changed_tensors: number of tensors with any difference.
    """

    largest: float
    relative_norm: float
    changed_tensors: int


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def difference(a: Path, b: Path) -> Difference:
    """Measure how far checkpoint `b` is from checkpoint `a`; both have the same tensors."""
    first, second = tensors_of(a), tensors_of(b)
    assert first and first.keys() == second.keys()
    gaps = {name: second[name].double() - tensor.double() for name, tensor in first.items()}
    square, square_a = (sum(float(t.double().square().sum()) for t in d.values()) for d in (gaps, first))
    largest = {name: float(gap.abs().max()) for name, gap in gaps.items() if gap.numel()}
    relative = math.sqrt(square / square_a) if square_a else (math.inf if square else 0.0)
    return Difference(max(largest.values()), relative, sum(value > 0 for value in largest.values()))
