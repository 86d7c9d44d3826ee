"""Check the folders of a merge before any file is read or written; for `gemsmith merge` and `gemsmith.merge`."""

from collections.abc import Sequence
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.run.checksums import check_whole

MARKS = ("config.json", "model.safetensors", "model.safetensors.index.json")
"""Files that identify a folder as a checkpoint; a merge replaces no other folder."""


def check_merge_folders(
    folders: Sequence[Path], out: Path, *, replace: bool, out_option: str, replace_option: str
) -> None:
    """Check that each checkpoint exists, and that writing `out` replaces nothing but a checkpoint.

    Args:
        folders: the checkpoints to merge.
        out: the folder to write.
        replace: allow a checkpoint at `out` to be replaced.
        out_option: the user's name for `out`, for messages.
        replace_option: the option that sets `replace`, for messages.

    Raises:
        UserError: a folder is missing, or is the output of a stage and has changed since; or `out` exists and may not
            be replaced.
    """
    for folder in folders:
        if not folder.is_dir():
            existing = "a file" if folder.exists() else "nothing"
            raise UserError(f"{folder}: found {existing}, expected a checkpoint folder")
    check_whole(folders)
    if not (out.exists() or out.is_symlink()):
        return
    if not replace:
        raise UserError(f"{out}: exists already; name another {out_option}, or give {replace_option} to replace it")
    if not out.is_dir() or (any(out.iterdir()) and not any((out / mark).exists() for mark in MARKS)):
        raise UserError(
            f"{out}: is not a checkpoint folder; {replace_option} replaces only checkpoints; name another {out_option}"
        )
    if any(out.resolve() in (folder.resolve(), *folder.resolve().parents) for folder in folders):
        raise UserError(f"{out}: is one of the checkpoints to merge, or contains one; name another {out_option}")
