"""A process beside the trainer that answers requests: every wait has a limit, and the process always ends.

The process is a program of its own (no fork, because the trainer has threads and a place in torch's process group), in
its own session, so that it and its children can be killed at any time. It ends when its parent ends.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.waits import waiting
from gemsmith.policy.samplers.scratch import with_scratch

LAST_LINES = 8
ORPHAN_CHECK_SECONDS = 1.0
KILL_SECONDS = 10.0


class EngineProcess:
    """A process that runs `python -P -m MODULE FOLDER FD PARENT` and answers one request at a time.

    `folder` belongs to the process: it holds files that are exchanged, and the process's output in `engine.log`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str],
        room: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Start the process; the first `ask` waits until it is ready.

        Args:
            name: name of the process in errors.
            module: the program.
            environment: all its environment variables.
            room: bytes that the folder will need, which decides whether memory can hold it.
            say: function that prints a line during long waits, called from another thread.
        """
        self.name, self._say = name, say
        self.folder = Path(tempfile.mkdtemp(prefix="gemsmith-engine-", dir=_memory_with_room(room)))
        # A socket pair instead of pipes: the parent can shut it down from another thread, which ends a blocked recv.
        ours, its = socket.socketpair()
        try:
            with its, open(self.folder / "engine.log", "wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, str(self.folder), str(its.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=with_scratch(environment, self.folder),
                    pass_fds=[its.fileno()],
                    # its own session and process group, so that one killpg ends it with all its children
                    start_new_session=True,
                )
        except BaseException:  # nothing has started that would remove the folder
            ours.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._connection = Connection(ours.detach())
        # finalize runs on close, on garbage collection and at exit of the interpreter, whichever comes first.
        self._end = weakref.finalize(self, _end, os.getpid(), self._process, self._connection, self.folder)
        self._gone: str | None = None

    @property
    def pid(self) -> int:
        """Return its process id, which is also its process group's."""
        return self._process.pid

    def ask(self, request: Any, limit: float, purpose: str) -> Any:
        """Send a request and wait for its answer.

        Args:
            request: any object that pickles.
            limit: seconds after which the process is killed.
            purpose: what is awaited, as in "waited for the vLLM engine to PURPOSE".

        Raises:
            UserError: no answer came in time.
            RunError: the request failed in the process, or the process died, now or before.
        """
        if not self._end.alive:
            raise RunError(f"The {self.name} cannot {purpose}: {self._gone or 'it was closed'}.")
        # The limit is enforced by a thread that kills the process; recv then fails with EOFError. A timeout on recv
        # itself would not cover send, nor a reply that arrives in parts.
        expired = threading.Event()
        timer = threading.Timer(limit, self._expire, (expired,))
        timer.daemon = True
        timer.start()
        try:
            with waiting(self._say, f"the {self.name} to {purpose}", limit):
                self._connection.send(request)
                done, answer = self._connection.recv()
        except (EOFError, OSError):
            self._fail(purpose, limit if expired.is_set() else None)
        except BaseException:  # an interrupt leaves an answer under way that nobody will fetch
            self._gone = "an earlier request was interrupted"
            self.close()
            raise
        finally:
            timer.cancel()
        if not done:
            raise RunError(f"The {self.name} could not {purpose}: {answer}")
        return answer

    def close(self) -> None:
        """End the process and remove its folder; repeated calls do nothing."""
        self._end()

    def _expire(self, expired: threading.Event) -> None:
        """End the wait by ending the process, and by closing the connection in case something else holds it open."""
        expired.set()
        _kill(self._process)
        # A grandchild may still hold the other end; shutting down our end wakes the reader in any case.
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    def _fail(self, purpose: str, expired: float | None) -> NoReturn:
        _kill(self._process)
        code, lines = _ended(self._process), self._last_lines()
        # The process may have died by itself just before the limit: then its own exit code is the better message.
        if expired is not None and code in (-signal.SIGKILL, None):
            self._gone = f"it took longer than {expired:g} s to {purpose} and was stopped"
            self.close()
            raise UserError(
                f"Waited {expired:g} s for the {self.name} to {purpose}, and stopped it; raise `timeout`, or request "
                f"fewer or shorter completions at once. Its last lines:\n{lines}"
            )
        if code is None:
            how = f"has not ended {KILL_SECONDS:g} s after it was killed"
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._gone = f"it {how} earlier"
        self.close()
        raise RunError(f"The {self.name} {how} when it should {purpose}. Its last lines:\n{lines}")

    def _last_lines(self) -> str:
        try:
            lines = (self.folder / "engine.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (none)"


def serve(arguments: list[str], answer: Callable[[Any], Any]) -> None:
    """Answer requests until the parent closes its end or is gone; the program of the process calls this.

    Args:
        arguments: arguments of the program.
        answer: function that answers a request; an exception is reported to the parent in one line.
    """
    folder, connection, parent = Path(arguments[0]), Connection(int(arguments[1])), int(arguments[2])
    # The parent may be killed without closing the connection in time (an engine busy in C code does not read it).
    threading.Thread(target=_die_with_parent, args=(parent, folder), daemon=True).start()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            reply = (True, answer(request))
        except Exception as error:  # whatever fails here is the parent's to tell
            traceback.print_exc()
            reply = (False, f"{type(error).__name__}: {error}")
        connection.send(reply)


def _die_with_parent(parent: int, folder: Path) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _memory_with_room(room: int) -> str | None:
    """Return the in-memory folder if it has twice the room; otherwise None, for the default place."""
    memory = "/dev/shm"
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * room:
        return memory
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children, also if it has died: its id stays reserved until `_ended` has reaped it."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Return how a killed process has ended; None if a driver keeps it from ending."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(KILL_SECONDS)
    return None


def _end(owner: int, process: subprocess.Popen[bytes], connection: Connection, folder: Path) -> None:
    connection.close()
    if os.getpid() != owner:
        return  # a fork of the trainer ends, and the trainer goes on
    _kill(process)
    _ended(process)
    shutil.rmtree(folder, ignore_errors=True)
