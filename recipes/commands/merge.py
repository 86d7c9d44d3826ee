"""`gemsmith merge`: average, SLERP and interpolation of checkpoint folders, on top of `gemsmith.weights.merge`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.recipes.checks.merge_folders import check_merge_folders

if TYPE_CHECKING:
    from gemsmith.weights.merge import GroupMerge

OutOption = Annotated[Path, typer.Option("--out", help="Output folder. The first folder's other files are copied too.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a checkpoint at --out once the merge is complete.")]
Grouping = Literal["layer", "tensor", "model"]


def average(
    folders: Annotated[list[Path], typer.Argument(help="Two or more checkpoint folders.")],
    out: OutOption,
    force: ForceOption = False,
) -> None:
    """Write the mean of two or more checkpoints, as WARM does with its reward models."""
    if len(folders) < 2:
        raise UserError(f"{folders[0]}: found one checkpoint, expected at least two to average")

    def merge() -> str:
        from gemsmith.weights.merge import average

        average(folders, out)
        return f"average of {len(folders)}: {_named(folders)}"

    _write(merge, folders, out, force)


def slerp(
    start: Annotated[Path, typer.Argument(help="Checkpoint that the others were trained from.")],
    folders: Annotated[list[Path], typer.Argument(help="Two or more checkpoints trained from START.")],
    out: OutOption,
    group: Annotated[
        Grouping, typer.Option("--group", help="Weights that share one angle: a layer, a tensor or the whole model.")
    ] = "layer",
    force: ForceOption = False,
) -> None:
    """Merge checkpoints by spherical interpolation, as WARP does.

    Writes START plus the SLERP of the task vectors (FOLDER - START). More than two folders are merged one after
    another, so their order matters.
    """
    if len(folders) < 2:
        raise UserError(f"{folders[0]}: found one checkpoint trained from {start}, expected at least two")

    def merge() -> str:
        from gemsmith.weights.merge import slerp

        groups = slerp(start, folders, out, group)
        lines = [f"slerp of {len(folders)}: {_named(folders)}, from {start}, by {group}", *map(_group_line, groups)]
        return "\n".join(lines)

    _write(merge, [start, *folders], out, force)


def interpolate(
    start: Annotated[Path, typer.Argument(help="Checkpoint at rate 0.")],
    end: Annotated[Path, typer.Argument(help="Checkpoint at rate 1.")],
    out: OutOption,
    rate: Annotated[float, typer.Option("--rate", help="Position between the two; above 1 extrapolates.")],
    force: ForceOption = False,
) -> None:
    """Write (1 - RATE) * START + RATE * END, as WARP's LITI step does."""

    def merge() -> str:
        from gemsmith.weights.merge import interpolate

        interpolate(start, end, rate, out)
        return f"interpolation at {rate:g}: {_named([start, end])}"

    _write(merge, [start, end], out, force)


def _write(merge: Callable[[], str], folders: Sequence[Path], out: Path, force: bool) -> None:
    """Check the folders before anything is read, merge, and print what was written."""
    from gemsmith.weights.ahead import keep_freed_memory

    check_merge_folders(folders, out, replace=force, out_option="--out", replace_option="--force")
    begun = time.perf_counter()
    keep_freed_memory()
    try:
        print(merge())
    except OSError as error:
        raise RunError(f"{out} could not be written: {error}") from error
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"merge: {out} ({size:,} bytes in {time.perf_counter() - begun:.1f} s)")


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))


def _group_line(group: "GroupMerge") -> str:
    angles = ", ".join(
        "no angle (weights did not change)" if angle is None else f"{angle:.2f}°" for angle in group.angles
    )
    norms = ", ".join(f"{norm:.4g}" for norm in group.norms)
    return f"  {group.group}: {angles}; norms {norms} -> {group.norm:.4g}"


GROUP_HELP = "Merge checkpoint folders without loading them whole."
SUBCOMMANDS: dict[str, Callable[..., None]] = {"average": average, "slerp": slerp, "interpolate": interpolate}
