"""Process of a python reward and its descendants, which must not outlive the run or exceed the memory limit.

A function may fork, detach, daemonise and clear its environment. Its process is therefore the child of a warden process
that is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)): Linux makes it the parent of every orphan among its descendants,
so that it finds and ends all of them, without root privileges. On other systems only the process group is ended, and
memory is not limited.
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
"""Seconds between two memory checks; longer if a check takes more than a tenth of this."""
END_LIMIT = 5.0
"""Time limit of ending the remaining processes, in seconds."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class PluginProcess:
    """Child process (`gemsmith.sandboxes.child.Child`) that is closed together with all its descendants.

    Args:
        entry: "module:function", called with the file descriptor for `guard` and `arguments`.
        arguments: strings for the entry.
        memory: limit of the resident memory of the process and its descendants together, in MiB; None: no limit.
        start_limit: time limit of starting the process, in seconds.

    Raises:
        ChildError: the process did not start.
    """

    def __init__(self, entry: str, arguments: Sequence[str], memory: int | None, start_limit: float) -> None:
        self.overgrown: int | None = None
        """Memory in MiB at which the process was stopped for exceeding its limit, else None."""
        self._closed = threading.Event()
        self._closing = threading.Lock()
        # The warden reads from the pipe. It sees the end of file when the run closes the other end, or dies.
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
        """End the process and all its descendants; closing twice has no effect."""
        self._cut()
        self._child.wait(END_LIMIT + 1.0)
        self._child.kill()

    def _cut(self) -> None:
        """Make the warden end all processes and then itself."""
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
    """Fork, and return in the child only, in a new session; the parent becomes its warden and does not return.

    When the child or the run ends, the warden ends all descendants and then itself, with the exit status of its child.
    Call this before any user code runs.

    Args:
        run_ends: file descriptor of a pipe whose other end only the run holds.
    """
    run, warden = os.getppid(), os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, 0)  # the warden must survive the run to end the descendants
    if (worker := os.fork()) == 0:
        die_with(warden)
        os.setsid()  # signals that user code sends to its process group must not reach the warden
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
    """Wait until the worker or the run (file descriptor 0) ends; return the worker's status, 0 if it still runs."""
    # SIGCHLD writes to the pipe, so that `select` wakes for an ended child as well as for the end of the run.
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
    """Kill all descendants until none is left; repeat, because a descendant may fork between the listing and the kill.

    Orphans become children of this process, which reaps them.
    """
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
    """Reap the children that have ended; return their statuses by process id."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    return ended


def _end_as(status: int) -> None:
    """End this process with the exit code or signal of `status`."""
    if os.WIFSIGNALED(status):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def descendants(ancestor: int) -> list[int]:
    """Return the ids of all descendants of a process; empty on systems without /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The parent's id is the second field after the command name, which may contain spaces and brackets.
                children[int(file.read().rpartition(b")")[2].split()[1])].append(int(name))
    below, pending = [], [ancestor]
    while pending:
        own = children[pending.pop()]
        below += own
        pending += own
    return below


def resident(pids: Sequence[int]) -> int:
    """Return the resident memory of processes in bytes; shared pages count once per process."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
            total += int(file.read().split()[1]) * _PAGE
    return total


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
