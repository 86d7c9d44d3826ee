"""A child process that answers requests over its pipes, and that can be killed at a time limit, from any thread.

Signals and threads cannot stop busy C code, a process can be killed. The child is a fresh interpreter (nothing is
forked, `__main__` is not imported again), leads a session of its own so that its whole group dies with it, and dies
with its parent: on Linux by PR_SET_PDEATHSIG, elsewhere when it next reads its closed pipe.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

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
    """One child process. `call` may be used by one thread at a time, `kill` by any.

    Args:
        entry: "module:function"; the function gets `arguments` and returns the handler, bytes -> bytes.
        arguments: strings handed to the entry function.
        start_limit: seconds that importing and calling the entry may take.
        environment: variables set on top of the parent's.
        quiet: throw away what the child prints; else its output and errors go to this process's standard error.
        inherited: file descriptors that the child gets, under the same numbers.

    Raises:
        ChildError: it did not start within `start_limit`, with the reason.
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
        self._reaping = threading.Lock()
        self._failure: OSError | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        # The kernel sends the death signal when the *thread* that started the child ends: so that thread stays with it.
        threading.Thread(target=self._keep, name=f"keeper of {entry}", daemon=True).start()
        self._started.wait()
        if self._process is None:
            raise ChildExitedError(f"{sys.executable} could not be started: {self._failure}", None)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._channel: Channel = Channel(self._process.stdin.fileno(), self._process.stdout.fileno(), self._process.pid)
        try:
            self._receive(start_limit, 1.0)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        assert self._process is not None
        return self._process.pid

    def call(self, request: bytes, time_limit: float, patience: float = 1.0) -> bytes:
        """The handler's answer to one request; see `Channel.receive` for the limits.

        Raises:
            ChildTimeoutError: no answer within `time_limit` seconds. The child still runs: kill it.
            ChildExitedError: the child is gone.
            ChildRaisedError: the handler raised.
        """
        self._channel.send(request)
        return self._receive(time_limit, patience)

    def wait(self, seconds: float) -> bool:
        """Whether the child ended, by itself, within some seconds."""
        return self._ended.wait(seconds)

    def kill(self) -> None:
        """End the child and everything it started, and wait until it is gone. Harmless when it is gone already."""
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
        if hasattr(os, "waitid"):  # macOS has it from Python 3.13 on
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # ended, and its number still its own
        else:
            self._process.wait()
        with self._reaping:
            _kill_group(self._process.pid)
            self._process.wait()  # from here on the number may be another's
            self._ended.set()

    def _receive(self, time_limit: float, patience: float) -> bytes:
        try:
            return self._channel.receive(time_limit, patience)
        except ChannelClosedError as error:
            self._ended.wait(5.0)
            assert self._process is not None
            raise exited(self._process.returncode, str(error)) from None


def exited(code: int | None, otherwise: str) -> ChildExitedError:
    """How a child ended, in words; `otherwise` where it has no exit code (yet)."""
    if code is None:
        return ChildExitedError(otherwise, None)
    if code < 0:
        return ChildExitedError(f"was ended by {signal.Signals(-code).name}", code)
    return ChildExitedError(f"exited with code {code}", code)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
