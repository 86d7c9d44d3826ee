"""A fork server: a process that imports and warms up once, then forks workers that are ready within milliseconds.

The server never reads a request meant for a worker, so no request can harm the server. Each worker answers over its own
socket. Any thread can kill a worker without the server's help. A worker dies with its server, and the server dies with
its parent.

Order of messages for one worker:

1. The parent creates a socket pair, and sends the worker's end to the server over the control socket.
2. The parent sends "fork" over the server's pipe. The server takes the descriptor, forks, and answers with the
   worker's process id.
3. The parent and the worker exchange requests and replies over the socket pair; see `gemsmith.sandboxes.channel`.
4. The parent kills the worker and sends "end PID". The server reaps the worker and answers with its exit code and its
   peak memory.
"""

import json
import os
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from gemsmith.sandboxes.channel import Channel
from gemsmith.sandboxes.child import Child, ChildError, ChildExitedError

# The server only forks and reaps, which takes milliseconds; a server that computes for 2 s has failed. The high
# patience (20 s of wall time) allows for a machine on which the server rarely gets a processor.
ANSWER_LIMIT, PATIENCE = 2.0, 10.0
"""Limits for one answer of the server: seconds of processor time, and wall time as a multiple of them."""


@dataclass(frozen=True)
class WorkerEnd:
    """The end of a worker.

    Attributes:
        code: exit code, or minus the number of the signal that ended the worker; None if unknown.
        peak: largest resident memory in bytes; 0 if unknown.
    """

    code: int | None
    peak: int


class Worker:
    """A forked process that answers requests with the entry's handler.

    Only one thread at a time may use a worker; any thread may call `kill`.
    """

    def __init__(self, server: "ForkServer", ours: socket.socket, pid: int) -> None:
        self.pid = pid
        self._server, self._socket = server, ours
        self._channel = Channel(ours.fileno(), ours.fileno(), pid)
        self._end: WorkerEnd | None = None
        self._lock = threading.Lock()

    def send(self, request: bytes) -> None:
        """Queue a request; see `Channel.send`."""
        self._channel.send(request)

    def receive(self, time_limit: float, patience: float = 1.0) -> bytes:
        """Return the next reply; see `Channel.receive`.

        Raises:
            ChannelClosedError: the worker has ended; `kill` returns its exit code.
        """
        return self._channel.receive(time_limit, patience)

    def alive(self) -> bool:
        """Return whether the worker still runs. Call only when no request is in progress."""
        return self._end is None and not self._channel.closed()

    def kill(self) -> WorkerEnd:
        """Kill the worker if it still runs, and return how it ended."""
        with self._lock:
            if self._end is None:
                self._end = self._server.end(self.pid)
                self._socket.close()
            return self._end


class ForkServer:
    """The parent's side of a fork server. Thread-safe.

    Args:
        entry: "module:function"; the function receives `arguments`, loads what the workers share, and returns the
            handler, which maps the bytes of a request to the bytes of a reply. The function must not start a thread,
            because a forked process has only the thread that called fork.
        arguments, start_limit, environment, quiet: see `gemsmith.sandboxes.child.Child`.

    Raises:
        ChildError: the server did not start; the message has the reason.
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
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            try:
                self._child = Child(
                    "gemsmith.sandboxes.fork_server_main:open_server",
                    [str(theirs.fileno()), entry, *arguments],
                    start_limit=start_limit,
                    environment=environment,
                    quiet=quiet,
                    inherited=[theirs.fileno()],
                )
            except BaseException:
                self._control.close()
                raise
        self._closed = False

    @property
    def pid(self) -> int:
        """Return the process id of the server."""
        return self._child.pid

    def fork(self) -> Worker:
        """Fork a worker and return it.

        Raises:
            ChildError: the server has ended, or could not fork. The server is closed then.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise ChildExitedError(f"could not open a socket: {error}", None) from error
        try:
            with theirs, self._lock:
                if self._closed:
                    raise ChildExitedError("was closed", None)
                # The descriptor goes first: the server reads it as soon as it reads "fork", and must not wait there.
                socket.send_fds(self._control, [b"."], [theirs.fileno()])
                pid = int(self._child.call(b"fork", ANSWER_LIMIT, PATIENCE))
        except (ChildError, OSError) as error:
            ours.close()
            self.close()
            raise error if isinstance(error, ChildError) else ChildExitedError(str(error), None) from error
        return Worker(self, ours, pid)

    def end(self, pid: int) -> WorkerEnd:
        """Kill a worker, or reap one that has already ended, and return how it ended.

        If the server does not answer, close it and return an unknown end.
        """
        with self._lock:
            if self._closed:
                return WorkerEnd(None, 0)
            try:
                # Only the server reaps its workers, and only on "end". Until then an ended worker is a zombie, so its
                # process id cannot belong to another process, and its exit code is kept.
                os.kill(pid, signal.SIGKILL)
                return WorkerEnd(*json.loads(self._child.call(f"end {pid}".encode(), ANSWER_LIMIT, PATIENCE)))
            except (ChildError, ProcessLookupError):
                self._close()
                return WorkerEnd(None, 0)

    def close(self) -> None:
        """Kill the server, and with it all of its workers."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._child.kill()
            self._control.close()
