"""A child process that answers requests over its pipes, and that can be killed at a time limit, from any thread.

Signals and threads cannot stop busy C code, a process can be killed. The child is a fresh interpreter (nothing is
forked, `__main__` is not imported again), leads a session of its own so that its whole group dies with it, and dies
with its parent: on Linux by PR_SET_PDEATHSIG, elsewhere when it next reads its closed pipe.
"""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

LENGTH = struct.Struct(">Q")
LARGEST_REPLY = 1 << 28
TICK = 1 / os.sysconf("SC_CLK_TCK")
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from sandboxes.child_main import main; main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])"
)


class ChildError(Exception):
    """A child did not answer; its subclasses say why. The child must be killed and another one started."""


class ChildTimeoutError(ChildError):
    """The child had not answered at the time limit."""


class ChildExitedError(ChildError):
    """The child is gone or never was. `code` is its exit code (minus the signal that ended it), None if unknown."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class ChildRaisedError(ChildError):
    """The entry function or the handler raised; the message is the child's. The child itself is still well."""


class Child:
    """One child process. `call` may be used by one thread at a time, `kill` by any.

    Args:
        entry: "module:function"; the function gets `arguments` and returns the handler, bytes -> bytes.
        arguments: strings handed to the entry function.
        start_limit: seconds that importing and calling the entry may take.
        environment: variables set on top of the parent's.
        quiet: throw away what the child prints; else its output and errors go to this process's standard error.

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
    ) -> None:
        search = json.dumps([os.path.abspath(folder) for folder in sys.path])
        self._command = [sys.executable, "-P", "-c", _BOOT, search, entry, str(os.getpid()), *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._errors: int = subprocess.DEVNULL if quiet else 2
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        # The kernel sends the death signal when the *thread* that started the child ends: so that thread stays with it.
        threading.Thread(target=self._keep, name=f"keeper of {entry}", daemon=True).start()
        self._started.wait()
        if self._process is None:
            raise ChildExitedError(f"{sys.executable} could not be started: {self._failure}", None)
        try:
            self._exchange(None, start_limit)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        assert self._process is not None
        return self._process.pid

    def call(self, request: bytes, time_limit: float, patience: float = 1.0) -> bytes:
        """The handler's answer to one request.

        Args:
            request: what the handler is given.
            time_limit: seconds until the call gives up.
            patience: above 1, `time_limit` counts the seconds that the child has computed (on Linux), so that a busy
                machine is not mistaken for a slow request; wall time is limited to `patience` times `time_limit`.

        Raises:
            ChildTimeoutError: no answer within `time_limit` seconds. The child still runs: kill it.
            ChildExitedError: the child is gone.
            ChildRaisedError: the handler raised.
        """
        return self._exchange(request, time_limit, patience)

    def kill(self) -> None:
        """End the child and everything it started, and wait until it is gone. Harmless when it is gone already."""
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
            )
        except OSError as error:
            self._failure = error
            self._ended.set()
            return
        finally:
            self._started.set()
        self._process.wait()
        _kill_group(self._process.pid)
        self._ended.set()

    def _exchange(self, request: bytes | None, time_limit: float, patience: float = 1.0) -> bytes:
        """Write a request (none: only wait for the greeting) and read the reply, both against one deadline."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        to_child, from_child = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(to_child, False)
        os.set_blocking(from_child, False)
        pending = memoryview(b"" if request is None else LENGTH.pack(len(request)) + request)
        received = bytearray()
        wanted = LENGTH.size
        deadline = time.monotonic() + time_limit
        end, allowed = time.monotonic() + patience * time_limit, _computed(self.pid) + time_limit
        poll = select.poll()
        poll.register(from_child, select.POLLIN)
        if pending:
            poll.register(to_child, select.POLLOUT)
        while len(received) < wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                deadline = min(end, time.monotonic() + allowed - _computed(self.pid))
                if deadline > time.monotonic() + TICK:
                    continue
                raise ChildTimeoutError(f"no answer within {time_limit:g} s")
            for fd, _ in poll.poll(left * 1000):
                if fd == to_child:
                    pending = pending[self._write(to_child, pending) :]
                    if not pending:
                        poll.unregister(to_child)
                    continue
                chunk = os.read(from_child, 1 << 20)
                if not chunk:
                    raise self._exit()
                received += chunk
                if wanted == LENGTH.size and len(received) >= LENGTH.size:
                    wanted += LENGTH.unpack_from(received)[0]
                    if wanted > LARGEST_REPLY:
                        raise ChildExitedError("the child's answer was not understood", None)
        if received[LENGTH.size : LENGTH.size + 1] == b"F":
            raise ChildRaisedError(received[LENGTH.size + 1 : wanted].decode(errors="replace"))
        return bytes(received[LENGTH.size + 1 : wanted])

    def _write(self, to_child: int, pending: memoryview) -> int:
        try:
            return os.write(to_child, pending)
        except BrokenPipeError:
            raise self._exit() from None

    def _exit(self) -> ChildExitedError:
        self._ended.wait(5.0)
        assert self._process is not None
        code = self._process.returncode
        if code is None:
            return ChildExitedError("closed its pipe", None)
        if code < 0:
            return ChildExitedError(f"was ended by {signal.Signals(-code).name}", code)
        return ChildExitedError(f"exited with code {code}", code)


def _computed(pid: int) -> float:
    """Seconds of processor time that a process has used; the wall clock where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) * TICK


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
