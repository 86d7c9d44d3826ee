"""Check the folders of a merge before anything is read or written; for `gemsmith merge` and `gemsmith.merge`."""

from collections.abc import Sequence
from pathlib import Path

from gemsmith.contracts.errors import UserError

MARKS = ("config.json", "model.safetensors", "model.safetensors.index.json")
"""Files by which a folder is known as a checkpoint, which a merge may replace."""


def check_merge_folders(
    folders: Sequence[Path], out: Path, *, replace: bool, out_option: str, replace_option: str
) -> None:
    """Check that each checkpoint is there, and that nothing but a checkpoint is lost at `out`.

    Args:
        folders: the checkpoints to merge.
        out: the folder to write.
        replace: whether a checkpoint at `out` may be replaced.
        out_option: what the caller's user calls `out`.
        replace_option: what the caller's user gives to set `replace`.

    Raises:
        UserError: a folder is missing, or something at `out` must stay.
    """
    for folder in folders:
        if not folder.is_dir():
            existing = "a file" if folder.exists() else "nothing"
            raise UserError(f"{folder}: found {existing}, expected a checkpoint folder")
    if not (out.exists() or out.is_symlink()):
        return
    if not replace:
        raise UserError(f"{out}: exists already; name another {out_option}, or give {replace_option} to replace it")
    if not out.is_dir() or (any(out.iterdir()) and not any((out / mark).exists() for mark in MARKS)):
        raise UserError(f"{out}: is no checkpoint folder, and {replace_option} replaces nothing else")
    if any(out.resolve() in (folder.resolve(), *folder.resolve().parents) for folder in folders):
        raise UserError(f"{out}: is one of the checkpoints to merge, or holds one; name another {out_option}")
