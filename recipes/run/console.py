"""Keeps what trainers print away from the screen, and Ctrl-C away from half-written records."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from gemsmith.contracts.errors import UserError

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def quieten() -> None:
    """Ask the libraries for silence, before they are imported, where the person did not ask otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


_sole = threading.Lock()
"""Held while a run is at work in this process: standard output, Ctrl-C and seeds belong to the whole process."""


@contextlib.contextmanager
def sole_run() -> Iterator[None]:
    """Hold this process for one run.

    Raises:
        UserError: another thread of this process is at a run.
    """
    if not _sole.acquire(blocking=False):
        raise UserError(
            "another run is at work in this process; wait for it to end, or start each run in a process of its own"
        )
    try:
        yield
    finally:
        _sole.release()


@contextlib.contextmanager
def own_output() -> Iterator[IO[str]]:
    """Open a file that writes to the present standard output, whatever standard output becomes meanwhile.

    Where `sys.stdout` is not file descriptor 1 (a notebook, a stream that the caller put there), it is that object.
    """
    stream = sys.stdout
    if stream is None:  # a program without a console
        with open(os.devnull, "w") as file:
            yield file
        return
    stream.flush()
    if _descriptor(stream) != 1:
        yield stream
        return
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace") as file:
        yield file


@contextlib.contextmanager
def captured(log: Path) -> Iterator[None]:
    """Send standard output and error to the end of a file: those of python, of C++ and of child processes.

    Python's own streams are replaced as well where they do not write to the descriptors 1 and 2, as in a notebook.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    with contextlib.ExitStack() as restored:
        file = restored.enter_context(log.open("ab"))
        for number in (1, 2):
            copy = os.dup(number)
            restored.callback(os.close, copy)
            restored.callback(os.dup2, copy, number)
            os.dup2(file.fileno(), number)
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = getattr(sys, name)
            if stream is None or _descriptor(stream) == number:
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
    """A text stream in another's place; a library that keeps it (a log handler) writes to that other one afterwards."""

    def __init__(self, target: IO[str]) -> None:
        self._target = target

    def lead_to(self, target: IO[str]) -> None:
        """Pass on to `target` from now on."""
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
    """Return the file descriptor behind a stream; None where there is none."""
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError, TypeError):  # io.UnsupportedOperation is a ValueError
        return None


class Interrupts:
    """Ctrl-C as one KeyboardInterrupt that nothing swallows: `seen` stays true, whatever a library makes of it."""

    def __init__(self) -> None:
        self.seen = False
        self._held = False

    @contextlib.contextmanager
    def watched(self) -> Iterator["Interrupts"]:
        """Take over SIGINT while the body runs; outside the main thread python's own handling stays."""
        before = signal.getsignal(signal.SIGINT)
        # None: a handler that is not python's, as in a program that embeds it; it could not be put back.
        if threading.current_thread() is not threading.main_thread() or before is None:
            yield self
            return
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the body end before a Ctrl-C counts; then it is for the caller to look at `seen`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        if not self._held:
            raise KeyboardInterrupt


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            AttributeError, OSError, ValueError
        ):  # a full disk or a closed stream must not hide the stage's own fault
            stream.flush()
