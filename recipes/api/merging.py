"""Merge checkpoint folders from Python, with the checks of `gemsmith merge`. Imports no torch."""

import os
from collections.abc import Sequence
from pathlib import Path

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.recipes.checks.merge_folders import check_merge_folders
from gemsmith.weights import merge
from gemsmith.weights.merge import Grouping, GroupMerge

PathLike = str | os.PathLike[str]


def average(folders: Sequence[PathLike], out: PathLike, *, overwrite: bool = False) -> Path:
    """Write the mean of two or more checkpoints, as WARM does with its reward models.

    Args:
        folders: checkpoint folders of one architecture, in safetensors.
        out: the folder to write. It is complete or absent, never partial, and has the dtypes and the other files of
            the first folder.
        overwrite: replace a checkpoint at `out` once the merge is complete.

    Returns:
        The folder `out`.

    Raises:
        UserError: an argument is invalid, or the checkpoints' tensors do not match.
        RunError: `out` could not be written.
    """
    paths, target = _checked(_at_least_two(folders), out, overwrite)
    try:
        merge.average(paths, target)
    except OSError as error:
        raise _unwritten(target, error) from error
    return target


def slerp(
    start: PathLike,
    folders: Sequence[PathLike],
    out: PathLike,
    *,
    group: Grouping = "layer",
    overwrite: bool = False,
) -> list[GroupMerge]:
    """Write `start` plus the spherical interpolation (SLERP) of two or more task vectors, as WARP does.

    A task vector is a checkpoint minus `start`. More than two are merged one after another, so their order matters.

    Args:
        start: the checkpoint that the others were trained from.
        folders: two or more checkpoints that were trained from it.
        out: the folder to write; see `average`.
        group: the weights that share one angle: a "layer", a "tensor", or the whole "model".
        overwrite: replace a checkpoint at `out` once the merge is complete.

    Returns:
        Angles (degrees) and norms of each group.

    Raises:
        UserError: an argument is invalid, or the checkpoints' tensors do not match.
        RunError: `out` could not be written.
    """
    if group not in ("layer", "tensor", "model"):
        raise UserError(f'group: found "{group}", expected layer, tensor or model')
    paths, target = _checked([start, *_at_least_two(folders)], out, overwrite)
    try:
        return merge.slerp(paths[0], paths[1:], target, group)
    except OSError as error:
        raise _unwritten(target, error) from error


def interpolate(start: PathLike, end: PathLike, rate: float, out: PathLike, *, overwrite: bool = False) -> Path:
    """Write (1 - rate) * start + rate * end, as WARP's LITI step does.

    Args:
        start: the checkpoint at rate 0.
        end: the checkpoint at rate 1.
        rate: the position between the two; above 1 it extrapolates.
        out: the folder to write; see `average`.
        overwrite: replace a checkpoint at `out` once the merge is complete.

    Returns:
        The folder `out`.

    Raises:
        UserError: an argument is invalid, or the checkpoints' tensors do not match.
        RunError: `out` could not be written.
    """
    paths, target = _checked([start, end], out, overwrite)
    try:
        merge.interpolate(paths[0], paths[1], rate, target)
    except OSError as error:
        raise _unwritten(target, error) from error
    return target


def _at_least_two(folders: object) -> Sequence[PathLike]:
    if isinstance(folders, str | os.PathLike) or not isinstance(folders, Sequence):
        raise UserError(f"folders: found {folders!r}, expected a list of checkpoint folders")
    if len(folders) < 2:
        raise UserError(f"folders: found {len(folders)} checkpoint{'' if folders else 's'}, expected at least two")
    return folders


def _checked(folders: Sequence[PathLike], out: PathLike, overwrite: bool) -> tuple[list[Path], Path]:
    """Return the folders and the target as paths, after checking them with `check_merge_folders`."""
    paths, target = [Path(folder).expanduser() for folder in folders], Path(out).expanduser()
    check_merge_folders(paths, target, replace=overwrite, out_option="`out`", replace_option="overwrite=True")
    return paths, target


def _unwritten(out: Path, error: OSError) -> RunError:
    return RunError(f"{out} could not be written: {error}")
