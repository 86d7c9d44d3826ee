"""Stopping by a signal (Ctrl-C, SIGTERM, SIGHUP): at the end of the step where a training can save, else at once."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

GRACE = 30.0
"""Seconds that a training has to reach the end of its step and to save, from the first signal on."""

SAME_SIGNAL = 1.0
"""Seconds in which a further signal counts as the first one: a terminal and a launcher may both send it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal stopped the run; the message says where the same command continues."""


class StopRequest:
    """The signal that asked this process to stop, if one did. Signals belong to the process, so there is one object."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._savers = 0
        self._held = False
        self._terminal: int | None = None

    @property
    def requested(self) -> bool:
        """Return True after the first signal."""
        return self.signal is not None

    @contextlib.contextmanager
    def watched(self) -> Iterator["StopRequest"]:
        """Handle the signals while the body runs; signals that the process ignores or handles otherwise stay so.

        Outside the main thread nothing changes. SIGINT has Python's own handler by default, which is replaced.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        ordinary = (signal.SIG_DFL, signal.default_int_handler)
        before: dict[int, Any] = {
            number: handler for number in SIGNALS if (handler := signal.getsignal(number)) in ordinary
        }
        before[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
        self.signal = None
        # Messages go to the terminal even while standard error is redirected to a log.
        with contextlib.suppress(OSError):
            self._terminal = os.dup(2)
        for number in before:
            signal.signal(number, self._on_alarm if number == signal.SIGALRM else self._on_signal)
        try:
            yield self
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._terminal is not None:
                os.close(self._terminal)
                self._terminal = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Delay the signals until the body has ended; the caller must check `requested` afterwards."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @contextlib.contextmanager
    def saves_at_step_end(self) -> Iterator[None]:
        """Declare that the body looks at `requested` at the end of each step, saves, and raises `Stopped`."""
        self._savers += 1
        try:
            yield
        finally:
            self._savers -= 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, self.signal or number
        now = time.monotonic()
        if first:
            self._since = now
        if self._held or (not first and now - self._since < SAME_SIGNAL):
            return
        if first and self._savers:
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            self._tell("stopping at the end of this step; the same signal again stops at once")
            return
        raise KeyboardInterrupt

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt

    def _tell(self, message: str) -> None:
        """Write a line with nothing but a system call: a signal handler may run inside any other write."""
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                os.write(self._terminal, f"gemsmith: {message}\n".encode())


stop_request = StopRequest()
