"""Policies on the line from a WARP stage's start to its last merge (LITI, Rame et al. 2024).

`line.json` in the stage's folder names the two ends, relative to that folder:

    {"start": "../sft-0a1b2c3d/output", "end": "iteration-1/merged"}

A point between or beyond the ends is written once, to `points/RATE` beside the stage's output, on first use.
"""

import fcntl
import json
import os
from pathlib import Path

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.reading import read_json
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.weights.merge import interpolate

INDEX = "line.json"
POINTS = "points"


def write_line(stage: Stage, start: Path, end: Path) -> None:
    """Write the paths of the policies at the rates 0 and 1."""
    ends = {"start": os.path.relpath(start, stage.folder), "end": os.path.relpath(end, stage.folder)}
    write_atomically(stage.folder / INDEX, json.dumps(ends) + "\n")


def point_on_line(output: Path, rate: float) -> Path:
    """Return the folder of the policy (1 - rate) * start + rate * end of the stage behind `output`.

    Rates 0 and 1 give the folders of the ends themselves. If several processes ask at once, one writes and the others
    wait.

    Args:
        output: the stage's output.
        rate: 0 or more; above 1 it extrapolates.

    Raises:
        UserError: no line is kept beside the output, or one of its ends is missing.
        RunError: the disk refused a write (full, read-only).
    """
    start, end = _ends(output)
    if rate in (0.0, 1.0):
        return end if rate else start
    folder = output.parent / POINTS / repr(float(rate))
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(exist_ok=True)
        with (folder.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                interpolate(start, end, rate, folder)
    except OSError as error:
        raise RunError(f"The point {rate:g} of a line could not be written to {folder}: {error}.") from error
    return folder


def _ends(output: Path) -> tuple[Path, Path]:
    index = output.parent / INDEX
    wanted = "the line of a `warp` stage, which `liti` needs", "name its output in the folder where it wrote it"
    content = read_json(index, *wanted, keys=("start", "end"))
    start, end = output.parent / str(content["start"]), output.parent / str(content["end"])
    for folder in (start, end):
        if not folder.is_dir():
            raise UserError(f"{folder}, which {index} names, does not exist; run the stage that wrote it again.")
    return start.resolve(), end.resolve()
