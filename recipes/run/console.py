"""Redirect the trainers' output to a file."""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.run.output import OutputLostError, is_guarded, output_stream

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def quieten() -> None:
    """Set environment variables that silence the libraries, unless the user has set them; call before importing."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


_sole = threading.Lock()
"""Lock held during a run: standard output, the Ctrl-C handler and the seeds are shared by the whole process."""


@contextlib.contextmanager
def sole_run() -> Iterator[None]:
    """Reserve this process for one run.

    Raises:
        UserError: another thread of this process is running a recipe.
    """
    if not _sole.acquire(blocking=False):
        raise UserError(
            "another run is at work in this process; wait until it ends, or start each run in a separate process"
        )
    try:
        yield
    finally:
        _sole.release()


@contextlib.contextmanager
def own_output() -> Iterator[IO[str]]:
    """Open a file that writes to the current standard output, even after standard output is redirected.

    If `sys.stdout` is not file descriptor 1 (a notebook, or a stream that the caller set), yield `sys.stdout` itself.
    """
    stream = sys.stdout
    if stream is None:  # the program has no console
        with open(os.devnull, "w") as file:
            yield file
        return
    stream.flush()
    if _descriptor(stream) != 1:
        yield stream
        return
    copy = output_stream(os.dup(1), owned=True)
    try:
        yield copy
    finally:
        with contextlib.suppress(OutputLostError, OSError):  # its first failure was raised where it happened
            copy.close()


@contextlib.contextmanager
def captured(log: Path) -> Iterator[None]:
    """Append standard output and standard error to a file, including output of C++ code and child processes.

    Python's own streams are replaced too if they do not write to file descriptors 1 and 2, as in a notebook.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    with contextlib.ExitStack() as restored:
        # The exit stack restores everything in reverse order, after a last flush into the file.
        file = restored.enter_context(log.open("ab"))
        for number in (1, 2):
            copy = os.dup(number)
            restored.callback(os.close, copy)
            restored.callback(os.dup2, copy, number)
            os.dup2(file.fileno(), number)
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = getattr(sys, name)
            # A guarded stream is replaced too: what the file refuses is not a fault of standard output.
            if stream is None or (_descriptor(stream) == number and not is_guarded(stream)):
                continue
            detour = _Detour(
                restored.enter_context(
                    open(number, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
                )
            )
            restored.callback(detour.lead_to, stream)
            restored.callback(setattr, sys, name, stream)
            setattr(sys, name, detour)
        restored.callback(_flush)
        yield


class _Detour(io.TextIOBase):
    """A text stream that replaces another; after `lead_to`, a library that still holds it writes to the original."""

    def __init__(self, target: IO[str]) -> None:
        self._target = target

    def lead_to(self, target: IO[str]) -> None:
        """Write to `target` from now on."""
        self._target = target

    def write(self, text: str) -> int:
        return self._target.write(text)

    def flush(self) -> None:
        self._target.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._target.fileno()


def _descriptor(stream: object) -> int | None:
    """Return the file descriptor of a stream, or None if it has none."""
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError, TypeError):  # io.UnsupportedOperation is a ValueError
        return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            AttributeError, OSError, ValueError
        ):  # a full disk or a closed stream must not hide the stage's own fault
            stream.flush()
