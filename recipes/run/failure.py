"""Turn unexpected errors of a stage into one message: a full disk is named, other tracebacks go to a file."""

import errno
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

from gemsmith.contracts.errors import RunError

FULL_CODES = (errno.ENOSPC, errno.EDQUOT)
FULL_MESSAGES = ("no space left on device", "os error 28", "disk quota exceeded", "storagefull")
# torch reports a failed write without the cause.
WRITE_MESSAGES = ("inline_container", "pytorchstreamwriter", "iostream error", "file write failed")
ALMOST_FULL = 4 << 20


def as_run_error(error: BaseException, folder: Path, what: str) -> RunError:
    """Return a one-sentence RunError for an unexpected error, and write its traceback to `error.log` in `folder`.

    Args:
        error: the unexpected error; a RunError is returned unchanged.
        folder: folder of the run or of its stage; it is created if it is missing.
        what: the failed step, such as "stage sft"; the message begins with it.
    """
    if isinstance(error, RunError):
        return error
    if is_disk_full(error, folder):
        place = _full_place(error) or folder
        return RunError(
            f"{what}: the disk of {place} is full; free some space and run the same command again (finished stages are "
            "kept)"
        )
    log = folder / "error.log"
    reason = (str(error).strip().splitlines() or [""])[0][:300]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)))
    except OSError as failed:
        return RunError(f"{what}: {type(error).__name__}: {reason} (and {log} cannot be written: {failed.strerror})")
    return RunError(f"{what}: {type(error).__name__}: {reason} (traceback: {log})")


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Return whether a full disk caused an error, directly or through its chain of causes."""
    for link in chain(error):
        message = str(link).lower()
        if isinstance(link, OSError) and link.errno in FULL_CODES:
            return True
        if any(phrase in message for phrase in FULL_MESSAGES):
            return True
        if any(phrase in message for phrase in WRITE_MESSAGES) and _almost_full(folder):
            return True
    return False


def _full_place(error: BaseException) -> str | None:
    """Return the file whose disk is full, where the system names it: it may be on another disk than the run."""
    links = (link for link in chain(error) if isinstance(link, OSError) and link.errno in FULL_CODES)
    return next((str(link.filename) for link in links if link.filename is not None), None)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all its causes and contexts, recursively, including the members of exception groups."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            pending += list(link.exceptions)


def _almost_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < ALMOST_FULL
    except OSError:
        return False
