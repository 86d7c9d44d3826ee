"""The process of a python reward with all that it starts: none of it outlives the run, or outgrows its memory.

A function may fork, detach, daemonise and clear its environment. So its process is the child of a warden: a process of
ours to which Linux gives every orphan among its descendants (PR_SET_CHILD_SUBREAPER, prctl(2)), so that whatever was
started is found below it and ended with it; no root is needed. Elsewhere only the process group is ended, and memory is
not limited.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence

from gemsmith.sandboxes.child import Child
from gemsmith.sandboxes.child_main import die_with

LOOK_EVERY = 0.1
"""Seconds between two looks at the memory; more where a look itself takes over a tenth of it."""
END_LIMIT = 5.0
"""Seconds that ending what is left may take."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class PluginProcess:
    """A child process (`gemsmith.sandboxes.child.Child`) that can be closed together with everything that it started.

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
        self._closed = threading.Event()
        self._closing = threading.Lock()
        run_ends, self._lifeline = os.pipe()
        try:
            self._child = Child(entry, [str(run_ends), *arguments], start_limit=start_limit, inherited=[run_ends])
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
        self._cut()
        self._child.wait(END_LIMIT + 1.0)
        self._child.kill()

    def _cut(self) -> None:
        """Let the warden end everything, itself last."""
        with self._closing:
            if not self._closed.is_set():
                self._closed.set()
                os.close(self._lifeline)

    def _watch(self, memory: int) -> None:
        pause = LOOK_EVERY
        while not self._closed.wait(pause):
            begun = time.monotonic()
            held = resident(descendants(self._child.pid)) >> 20
            if held > memory:
                self.overgrown = held
                self._cut()
                return
            pause = max(LOOK_EVERY, 10 * (time.monotonic() - begun))


def guard(run_ends: int) -> None:
    """Fork, and return in the child alone, in a session of its own; the parent becomes its warden.

    The warden ends when its child or the run ends, with how its child ended; before that, it ends every descendant. To
    be called before any code of the user's runs.

    Args:
        run_ends: file descriptor whose other end only the run has.
    """
    run, warden = os.getppid(), os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, 0)  # a warden that is killed with the run ends nothing
    if (worker := os.fork()) == 0:
        die_with(warden)
        os.setsid()  # so that what it sends to its process group does not reach the warden
        os.close(run_ends)
        return
    status = 0
    try:
        os.dup2(run_ends, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.closerange(3, 4096)
        status = _ward(worker, run)
        _end_descendants(worker)
    finally:
        _end_as(status)


def _ward(worker: int, run: int) -> int:
    """Wait until the worker ends or, at file descriptor 0, the run; the worker's status, 0 where it still runs."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    while True:
        if (status := _reaped().get(worker)) is not None:
            return status
        ready, _, _ = select.select([0, woken], [], [], 1.0)
        if 0 in ready or os.getppid() != run:
            return 0
        if woken in ready:
            os.read(woken, 4096)


def _end_descendants(worker: int) -> None:
    """Kill every descendant until none is left: one may fork meanwhile, and orphans come here to be waited for."""
    deadline = time.monotonic() + END_LIMIT
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if sys.platform != "linux":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(worker, signal.SIGKILL)
            for pid in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.002)


def _reaped() -> dict[int, int]:
    """Statuses of the children that have ended, by process id."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _end_as(status: int) -> None:
    """End this process as another one ended."""
    if os.WIFSIGNALED(status):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def descendants(ancestor: int) -> list[int]:
    """Ids of the processes below one, at whatever depth; none where there is no /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                children[int(file.read().rpartition(b")")[2].split()[1])].append(int(name))
    found, pending = [], [ancestor]
    while pending:
        below = children[pending.pop()]
        found += below
        pending += below
    return found


def resident(pids: Sequence[int]) -> int:
    """Bytes of memory that processes hold; pages that they share count for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
            total += int(file.read().split()[1]) * _PAGE
    return total


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
