"""Average, SLERP and interpolation of checkpoint folders.

All tensors of the first folder must exist in the others with the same shape, and the configurations must agree
(`weights.layout`). A text checkpoint merges with the text tower of a multimodal one. Arithmetic is block by block, and
wide enough that tensors equal in all folders stay equal bit for bit: float32 for 16-bit formats, else float64. The
result has the dtypes and the other files of the first folder. Tensors that are not floating point must be equal
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
from gemsmith.weights.formats import Array, narrowed, widened
from gemsmith.weights.layout import Match, drop_tied_head, match
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
def _opened(folders: Sequence[Path]) -> Iterator[list[Match]]:
    """Open the checkpoints, matched to the first; raise a UserError if one does not fit."""
    if not folders:
        raise UserError("found no checkpoint to merge; give at least one folder.")
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(Checkpoint(Path(folder))) for folder in folders]
        for checkpoint in checkpoints:
            drop_tied_head(checkpoint)
        yield [match(checkpoints[0], checkpoint) for checkpoint in checkpoints]


def _write(out: Path, matches: list[Match], combine: Callable[[str, slice], Array]) -> None:
    first = matches[0].checkpoint

    def block(name: str, rows: slice) -> Array:
        common = _common_rows(matches, name)
        if common is None or rows.start >= common:  # only in the first: a vision tower, or rows of padding
            return first.read(name, rows)
        if first.tensors[name].floating:
            if rows.stop <= common:
                return combine(name, rows)
            merged = narrowed(combine(name, slice(rows.start, common)), first.tensors[name].dtype)
            return np.concatenate([merged, first.read(name, slice(common, rows.stop))])
        values = first.read(name, rows)
        for other in matches[1:]:
            if not np.array_equal(values, other.checkpoint.read(other.names[name], rows)):
                raise UserError(
                    f"tensor {name} ({first.tensors[name].dtype}) differs between {first.folder} and "
                    f"{other.checkpoint.folder}: only floating-point tensors can be merged."
                )
        return values

    write_checkpoint(out, first, block)


def _common_rows(matches: list[Match], name: str) -> int | None:
    """Return the number of rows of a tensor that all checkpoints have; None if one of them lacks the tensor."""
    if any(name not in other.names for other in matches):
        return None
    shape = matches[0].checkpoint.tensors[name].shape
    return min([shape[0] if shape else 1, *(other.rows[name] for other in matches if name in other.rows)])


def _wide(other: Match, name: str, rows: slice) -> Array:
    """Return rows of a tensor in the precision of the arithmetic.

    Raises:
        UserError: they contain NaN or infinity, which would spread to the result.
    """
    own = other.names[name]
    values = widened(other.checkpoint.read(own, rows), other.checkpoint.tensors[own].dtype)
    # The sum is cheaper than a look at each value, and finite only if all are (or they are as large as 1e38).
    if not math.isfinite(values.sum()) and not np.isfinite(values).all():
        raise UserError(f"tensor {own} of {other.checkpoint.folder} contains NaN or infinity: train or fetch it again.")
    return values


def _group_of(name: str, group: Grouping) -> str:
    if group == "model":
        return "model"
    layer = LAYER.match(name) if group == "layer" else None
    return layer.group() if layer else name


def _merge_groups(matches: list[Match], group: Grouping, along: Along) -> dict[str, GroupMerge]:
    """Compute the inner products of each group's task vectors, and from them angles and coefficients (first pass)."""
    init, finals, tensors = matches[0], matches[1:], matches[0].checkpoint.tensors
    names = [name for name, tensor in tensors.items() if tensor.floating and _common_rows(matches, name) is not None]

    def products(at: tuple[str, slice]) -> tuple[str, Array]:
        start = _wide(init, *at)
        deltas = [_wide(final, *at) for final in finals]
        for delta in deltas:
            delta -= start
        return _group_of(at[0], group), np.array(gram_matrix(deltas))

    grams: dict[str, Array] = {}
    for key, gram in computed_ahead(products, ((name, rows) for name in names for rows in _blocks(matches, name))):
        grams[key] = grams[key] + gram if key in grams else gram
    return {key: _merge(key, gram.tolist(), along) for key, gram in grams.items()}


def _blocks(matches: list[Match], name: str) -> Iterator[slice]:
    """Yield the ranges of rows that all checkpoints have."""
    common = _common_rows(matches, name) or 0
    for rows in matches[0].checkpoint.blocks(name):
        if rows.start < common:
            yield slice(rows.start, min(rows.stop, common))


def _merge(name: str, gram: list[list[float]], along: Along) -> GroupMerge:
    shares, angles = fold(gram, slerp_shares if along == "slerp" else lerp_shares)
    return GroupMerge(
        group=name,
        shares=tuple(shares),
        angles=tuple(None if angle is None else math.degrees(angle) for angle in angles),
        norms=tuple(math.sqrt(gram[m][m]) for m in range(len(gram))),
        norm=combined_norm(shares, gram),
    )
