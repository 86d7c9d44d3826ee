"""Keeps what trainers print away from the screen, and Ctrl-C away from half-written records."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

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


@contextlib.contextmanager
def own_output() -> Iterator[IO[str]]:
    """A file that writes to the present standard output, whatever standard output becomes meanwhile."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace") as file:
        yield file


@contextlib.contextmanager
def captured(log: Path) -> Iterator[None]:
    """Send standard output and error to the end of a file: those of python, of C++ and of child processes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    try:
        with log.open("ab") as file:
            for number, _ in saved:
                os.dup2(file.fileno(), number)
        yield
    finally:
        _flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)


class Interrupts:
    """Ctrl-C as one KeyboardInterrupt that nothing swallows: `seen` stays true, whatever a library makes of it."""

    def __init__(self) -> None:
        self.seen = False
        self._held = False

    @contextlib.contextmanager
    def watched(self) -> Iterator["Interrupts"]:
        """Take over SIGINT while the body runs; outside the main thread python's own handling stays."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGINT, self._on_signal)
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
            OSError, ValueError
        ):  # a full disk or a closed stream must not hide the stage's own fault
            stream.flush()
