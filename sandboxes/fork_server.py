"""A process that has imported and warmed up once, and forks workers that are ready within milliseconds.

The server never sees a request of its workers, so that nothing a request does can harm it. Each worker answers over a
socket of its own, and can be killed, from any thread, without the server's doing; it dies with the server, and the
server with its parent.
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

ANSWER_LIMIT, PATIENCE = 2.0, 10.0
"""Seconds that the server may compute to fork or to report: it does nothing else, more means that it is lost."""


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended: `code`, minus the signal that ended it, None if unknown; `peak`, its most bytes of memory."""

    code: int | None
    peak: int


class Worker:
    """A forked process that answers requests with the entry's handler. One thread at a time, but for `kill`."""

    def __init__(self, server: "ForkServer", ours: socket.socket, pid: int) -> None:
        self.pid = pid
        self._server, self._socket = server, ours
        self._channel = Channel(ours.fileno(), ours.fileno(), pid)
        self._end: WorkerEnd | None = None
        self._lock = threading.Lock()

    def send(self, request: bytes) -> None:
        """See `Channel.send`."""
        self._channel.send(request)

    def receive(self, time_limit: float, patience: float = 1.0) -> bytes:
        """See `Channel.receive`; a worker that is gone raises ChannelClosedError, and `kill` says how it ended."""
        return self._channel.receive(time_limit, patience)

    def alive(self) -> bool:
        """Whether the worker is still there; to be asked when nothing is under way."""
        return self._end is None and not self._channel.closed()

    def kill(self) -> WorkerEnd:
        """End the worker if it has not ended, and say how it did."""
        with self._lock:
            if self._end is None:
                self._end = self._server.end(self.pid)
                self._socket.close()
            return self._end


class ForkServer:
    """The server, and the workers that it has forked. Usable from any thread.

    Args:
        entry: "module:function"; the function gets `arguments`, prepares what workers share, and returns the handler,
            bytes -> bytes. It must start no thread.
        arguments, start_limit, environment, quiet: as for `gemsmith.sandboxes.child.Child`.

    Raises:
        ChildError: it did not start, with the reason.
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
        """Process id of the server."""
        return self._child.pid

    def fork(self) -> Worker:
        """A new worker.

        Raises:
            ChildError: the server is lost, or could not fork; it is closed then.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise ChildExitedError(f"has no socket: {error}", None) from error
        try:
            with theirs, self._lock:
                if self._closed:
                    raise ChildExitedError("was closed", None)
                socket.send_fds(self._control, [b"."], [theirs.fileno()])
                pid = int(self._child.call(b"fork", ANSWER_LIMIT, PATIENCE))
        except (ChildError, OSError) as error:
            ours.close()
            self.close()
            raise error if isinstance(error, ChildError) else ChildExitedError(str(error), None) from error
        return Worker(self, ours, pid)

    def end(self, pid: int) -> WorkerEnd:
        """Kill a worker and report how it ended, which may have been before; a server that is lost is closed."""
        with self._lock:
            if self._closed:
                return WorkerEnd(None, 0)
            try:
                os.kill(pid, signal.SIGKILL)  # at most a zombie, which keeps the number and how it ended
                return WorkerEnd(*json.loads(self._child.call(f"end {pid}".encode(), ANSWER_LIMIT, PATIENCE)))
            except (ChildError, ProcessLookupError):
                self._close()
                return WorkerEnd(None, 0)

    def close(self) -> None:
        """End the server and its workers."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._child.kill()
            self._control.close()
