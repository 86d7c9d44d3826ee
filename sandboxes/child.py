"""A child process that answers requests over its pipes, and that any thread can kill at a time limit.

Neither a signal nor a thread can stop busy C code, but a process can be killed. The child is a new interpreter: it is
not forked, and it does not import `__main__` again. It leads its own session, so that all processes it starts die with
it. It dies with its parent: on Linux by PR_SET_PDEATHSIG, elsewhere when it next reads its closed pipe.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from gemsmith.contracts.processes import killed_by
from gemsmith.sandboxes.channel import (
    Channel,
    ChannelClosedError,
    ChildError,
    ChildExitedError,
    ChildHeldError,
    ChildRaisedError,
    ChildTimeoutError,
)

__all__ = ["Child", "ChildError", "ChildExitedError", "ChildHeldError", "ChildRaisedError", "ChildTimeoutError"]

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from gemsmith.sandboxes.child_main import main; main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])"
)


class Child:
    """One child process. One thread at a time may use `call`; any thread may use `kill`.

    Args:
        entry: "module:function"; the function receives `arguments` and returns the handler, which maps the bytes of a
            request to the bytes of a reply.
        arguments: strings passed to the entry function.
        start_limit: seconds that importing and calling the entry may take.
        environment: environment variables that are added to the parent's or replace them.
        quiet: discard what the child prints. If False, its output and errors go to this process's standard error.
        inherited: file descriptors that the child inherits, under the same numbers.

    Raises:
        ChildError: the child did not start within `start_limit`; the message has the reason.
    """

    def __init__(
        self,
        entry: str,
        arguments: Sequence[str] = (),
        *,
        start_limit: float = 60.0,
        environment: dict[str, str] | None = None,
        quiet: bool = False,
        inherited: Sequence[int] = (),
    ) -> None:
        search = json.dumps([os.path.abspath(folder) for folder in sys.path])
        self._command = [sys.executable, "-P", "-c", _BOOT, search, entry, str(os.getpid()), *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._errors: int = subprocess.DEVNULL if quiet else 2
        self._inherited = tuple(inherited)
        self._process: subprocess.Popen[bytes] | None = None
        self._peak = 0
        self._reaping = threading.Lock()
        self._failure: OSError | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        # The kernel sends the parent-death signal when the *thread* that started the child ends, not when the process
        # ends. So a dedicated thread starts the child and lives as long as the child does.
        threading.Thread(target=self._keep, name=f"keeper of {entry}", daemon=True).start()
        self._started.wait()
        if self._process is None:
            raise ChildExitedError(f"{sys.executable} could not be started: {self._failure}", None)
        # The first message is the child's greeting: an empty reply once its entry function has returned a handler, or
        # a failure reply with the exception that the import or the entry function raised.
        assert self._process.stdin is not None and self._process.stdout is not None
        self._channel: Channel = Channel(self._process.stdin.fileno(), self._process.stdout.fileno(), self._process.pid)
        try:
            self._receive(start_limit, 1.0)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Return the process id of the child."""
        assert self._process is not None
        return self._process.pid

    def call(self, request: bytes, time_limit: float, patience: float = 1.0) -> bytes:
        """Send one request and return the handler's reply; see `Channel.receive` for the two limits.

        Raises:
            ChildTimeoutError: no reply within `time_limit` seconds. The child still runs: kill it.
            ChildExitedError: the child has ended.
            ChildRaisedError: the handler raised an exception.
        """
        self._channel.send(request)
        return self._receive(time_limit, patience)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the child to end by itself, and return whether it ended."""
        return self._ended.wait(seconds)

    def kill(self) -> None:
        """Kill the child and every process it started, and wait until they have ended. Safe to call repeatedly."""
        with self._reaping:
            if not self._ended.is_set() and self._process is not None:
                _kill_group(self._process.pid)
        self._ended.wait(10.0)

    def _keep(self) -> None:
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=self._environment,
                bufsize=0,
                start_new_session=True,
                pass_fds=self._inherited,
            )
        except OSError as error:
            self._failure = error
            self._ended.set()
            return
        finally:
            self._started.set()
        # Wait without reaping (WNOWAIT): the process id stays the child's, so killing its group cannot hit another
        # process. `wait` then reaps the child and frees the id; the lock keeps `kill` from using the id after that.
        if hasattr(os, "waitid"):  # macOS: since Python 3.13
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        with self._reaping:
            _kill_group(self._process.pid)
            self._reap()
            self._ended.set()

    def _reap(self) -> None:
        """Free the process id, and record the exit code and the peak memory of the child and what it waited for."""
        assert self._process is not None
        if self._process.returncode is None:
            with contextlib.suppress(ChildProcessError):
                _, status, usage = os.wait4(self._process.pid, 0)
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self._peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self._process.wait()

    def _receive(self, time_limit: float, patience: float) -> bytes:
        try:
            return self._channel.receive(time_limit, patience)
        except ChannelClosedError as error:
            self._ended.wait(5.0)
            assert self._process is not None
            raise exited(self._process.returncode, str(error), self._peak) from None


def exited(code: int | None, otherwise: str, peak: int = 0) -> ChildExitedError:
    """Return an error that describes how a child ended; its message is `otherwise` if there is no exit code (yet).

    `peak` is the largest resident memory of the child in bytes, for a child that a signal ended; 0 if unknown.
    """
    if code is None:
        return ChildExitedError(otherwise, None)
    if code < 0:
        return ChildExitedError(f"was {killed_by(-code, peak)}", code)
    return ChildExitedError(f"exited with code {code}", code)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
