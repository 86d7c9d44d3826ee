"""Average, SLERP and interpolation of checkpoint folders.

All tensors of the first folder must exist in the others with the same shape. Arithmetic is block by block, and wide
enough that tensors equal in all folders stay equal bit for bit: float32 for 16-bit formats, else float64. The result
has the dtypes and the other files of the first folder. Tensors that are not floating point must be equal
everywhere.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gemsmith.contracts.errors import UserError
from gemsmith.weights.ahead import computed_ahead
from gemsmith.weights.checkpoint import Checkpoint, write_checkpoint
from gemsmith.weights.formats import Array, widened
from gemsmith.weights.vectors import combined_norm, fold, gram_matrix, lerp, lerp_shares, slerp_shares

Grouping = Literal["layer", "tensor", "model"]
Along = Literal["slerp", "lerp"]
LAYER = re.compile(r"^(?:.*\.)?layers\.\d+(?=\.)")


@dataclass(frozen=True)
class GroupMerge:
    """Record of the merge of one group's task vectors.

    Attributes:
        group: the layer (its tensors' common prefix), tensor, or "model".
        shares: the coefficient of each task vector.
        angles: degrees between the merge so far and the next task vector; None where one of them was zero.
        norms: Euclidean norm of each task vector.
        norm: Euclidean norm of the merged task vector.
    """

    group: str
    shares: tuple[float, ...]
    angles: tuple[float | None, ...]
    norms: tuple[float, ...]
    norm: float

    @property
    def norm_ratio(self) -> float | None:
        """Return the norm of the first task vector over that of the second (paper: 0.95 to 1.15); None without two."""
        return self.norms[0] / self.norms[1] if len(self.norms) > 1 and self.norms[1] else None


def average(folders: Sequence[Path], out: Path) -> None:
    """Write the mean of M checkpoints (WARM: of its reward models) to the folder `out`."""
    with _opened(folders) as checkpoints:

        def mean(name: str, rows: slice) -> Array:
            total = _wide(checkpoints[0], name, rows)
            for checkpoint in checkpoints[1:]:
                total += _wide(checkpoint, name, rows)
            total /= len(checkpoints)
            return total

        _write(out, checkpoints, mean)


def slerp(
    init: Path, finals: Sequence[Path], out: Path, group: Grouping = "layer", along: Along = "slerp"
) -> list[GroupMerge]:
    """Write init + SLERP of the task vectors of `finals` to the folder `out` (WARP's second stage).

    More than two are folded in the given order with rate 1/m (Eq. 26), which is not associative: keep the order fixed.
    With "lerp" it writes their average instead (the paper's baseline) and returns the same angles and norms.
    With group "layer" the tensors of a layer share one angle; embeddings, final norm and heads have their own.

    Returns:
        Angles and norms of each group, in the order of the stored tensors.
    """
    with _opened([init, *finals]) as checkpoints:
        merges = _merge_groups(checkpoints, group, along)

        def merged(name: str, rows: slice) -> Array:
            start = _wide(checkpoints[0], name, rows)
            total = start.copy()
            for share, final in zip(merges[_group_of(name, group)].shares, checkpoints[1:], strict=True):
                step = _wide(final, name, rows)
                step -= start
                step *= share
                total += step
            return total

        _write(out, checkpoints, merged)
    return list(merges.values())


def interpolate(start: Path, end: Path, rate: float, out: Path) -> None:
    """Write (1 - rate) * start + rate * end to the folder `out` (LITI); a rate above 1 extrapolates."""
    with _opened([start, end]) as checkpoints:
        first, second = checkpoints
        _write(out, checkpoints, lambda name, rows: lerp(_wide(first, name, rows), _wide(second, name, rows), rate))


@contextmanager
def _opened(folders: Sequence[Path]) -> Iterator[list[Checkpoint]]:
    """Open the checkpoints; raise a UserError unless they have the same names and shapes."""
    if not folders:
        raise UserError("found no checkpoint to merge; give at least one folder.")
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(Checkpoint(Path(folder))) for folder in folders]
        for other in checkpoints[1:]:
            _check_alike(checkpoints[0], other)
        yield checkpoints


def _check_alike(first: Checkpoint, other: Checkpoint) -> None:
    for here, there in ((first, other), (other, first)):
        for name in here.tensors:
            if name not in there.tensors:
                raise UserError(
                    f"tensor {name} is in {here.folder} but not in {there.folder}; "
                    "merge checkpoints of one architecture."
                )
    for name, tensor in first.tensors.items():
        if tensor.shape != other.tensors[name].shape:
            raise UserError(
                f"tensor {name} is {list(tensor.shape)} in {first.folder} and {list(other.tensors[name].shape)} in "
                f"{other.folder}: merge checkpoints of one architecture."
            )


def _write(out: Path, checkpoints: list[Checkpoint], combine: Callable[[str, slice], Array]) -> None:
    first = checkpoints[0]

    def block(name: str, rows: slice) -> Array:
        if first.tensors[name].floating:
            return combine(name, rows)
        values = first.read(name, rows)
        for other in checkpoints[1:]:
            if not np.array_equal(values, other.read(name, rows)):
                raise UserError(
                    f"tensor {name} ({first.tensors[name].dtype}) differs between {first.folder} and {other.folder}: "
                    "only floating-point tensors can be merged."
                )
        return values

    write_checkpoint(out, first, block)


def _wide(checkpoint: Checkpoint, name: str, rows: slice) -> Array:
    return widened(checkpoint.read(name, rows), checkpoint.tensors[name].dtype)


def _group_of(name: str, group: Grouping) -> str:
    if group == "model":
        return "model"
    layer = LAYER.match(name) if group == "layer" else None
    return layer.group() if layer else name


def _merge_groups(checkpoints: list[Checkpoint], group: Grouping, along: Along) -> dict[str, GroupMerge]:
    """Compute the inner products of each group's task vectors, and from them angles and coefficients (first pass)."""
    init, finals = checkpoints[0], checkpoints[1:]
    names = [name for name, tensor in init.tensors.items() if tensor.floating]

    def products(at: tuple[str, slice]) -> tuple[str, Array]:
        start = _wide(init, *at)
        deltas = [_wide(final, *at) for final in finals]
        for delta in deltas:
            delta -= start
        return _group_of(at[0], group), np.array(gram_matrix(deltas))

    grams: dict[str, Array] = {}
    for key, gram in computed_ahead(products, ((name, rows) for name in names for rows in init.blocks(name))):
        grams[key] = grams[key] + gram if key in grams else gram
    return {key: _merge(key, gram.tolist(), along) for key, gram in grams.items()}


def _merge(name: str, gram: list[list[float]], along: Along) -> GroupMerge:
    shares, angles = fold(gram, slerp_shares if along == "slerp" else lerp_shares)
    return GroupMerge(
        group=name,
        shares=tuple(shares),
        angles=tuple(None if angle is None else math.degrees(angle) for angle in angles),
        norms=tuple(math.sqrt(gram[m][m]) for m in range(len(gram))),
        norm=combined_norm(shares, gram),
    )
