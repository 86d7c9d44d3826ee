"""The process of a python reward with all that it starts: none of it outlives the run, or outgrows its memory.

A function may fork, detach and daemonise. What it started is found by a mark in the environment that it inherited,
which Linux keeps in /proc; elsewhere only the process group is ended, and memory is not limited.
"""

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Sequence

from sandboxes.child import Child

MARK = "GEMSMITH_PLUGIN"
LOOK_EVERY = 0.1
"""Seconds between two looks at the memory; more where a look itself takes over a tenth of it."""
END_LIMIT = 5.0
"""Seconds that ending what is left may take."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PluginProcess:
    """A child process (see `sandboxes.child.Child`) that can be closed together with everything that it started.

    Args:
        entry: "module:function", called with the file descriptor for `guard` and `arguments`.
        arguments: texts for the entry.
        memory: MiB that the process and what it started may hold together; None: no limit.
        start_limit: seconds that starting it may take.

    Raises:
        ChildError: it did not start.
    """

    def __init__(self, entry: str, arguments: Sequence[str], memory: int | None, start_limit: float) -> None:
        self.overgrown: int | None = None
        """MiB that it held when it was stopped for them."""
        self._mark = uuid.uuid4().hex
        self._closed = threading.Event()
        run_ends, self._lifeline = os.pipe()
        try:
            self._child = Child(
                entry,
                [str(run_ends), *arguments],
                start_limit=start_limit,
                environment={MARK: self._mark},
                inherited=[run_ends],
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(run_ends)
        if memory is not None:
            threading.Thread(target=self._watch, args=(memory,), name=f"memory of {entry}", daemon=True).start()

    def call(self, request: bytes, time_limit: float) -> bytes:
        """See `Child.call`."""
        return self._child.call(request, time_limit)

    def close(self) -> None:
        """End the process and everything that it started. Harmless when it is closed already."""
        self._child.kill()
        end_marked(self._mark)
        if not self._closed.is_set():
            self._closed.set()
            os.close(self._lifeline)

    def _watch(self, memory: int) -> None:
        pause = LOOK_EVERY
        while not self._closed.wait(pause):
            begun = time.monotonic()
            held = resident(marked(self._mark)) >> 20
            if held > memory:
                self.overgrown = held
                self._child.kill()
                return
            pause = max(LOOK_EVERY, 10 * (time.monotonic() - begun))


def guard(run_ends: int) -> None:
    """Fork a process that waits for the end of the run, and then ends all that still has this one's mark.

    A run that is killed can end nothing itself. To be called before any code of the user's runs.

    Args:
        run_ends: file descriptor whose other end only the run has.
    """
    if (pid := os.fork()) > 0:
        os.waitpid(pid, 0)
        os.close(run_ends)
        return
    try:
        os.setsid()  # so that it is left when the group is killed
        if os.fork() > 0:
            return  # so that it is nobody's child here, and the user's code may wait for all of its own
        os.dup2(run_ends, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.closerange(3, 4096)  # none of the user's is open yet
        os.read(0, 1)
        end_marked(os.environ[MARK])
    finally:
        os._exit(0)


def marked(mark: str) -> list[int]:
    """Ids of the processes that were started with this mark in their environment, and their forks."""
    needle, found = f"{MARK}={mark}".encode(), []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if needle in file.read().split(b"\0"):
                    found.append(int(name))
    return found


def resident(pids: Sequence[int]) -> int:
    """Bytes of memory that processes hold; pages that they share count for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
            total += int(file.read().split()[1]) * _PAGE
    return total


def end_marked(mark: str) -> None:
    """Kill every other process with this mark, again and again until none is found: one may fork meanwhile."""
    deadline = time.monotonic() + END_LIMIT
    while (pids := [pid for pid in marked(mark) if pid != os.getpid()]) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
