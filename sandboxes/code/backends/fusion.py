"""A client of SandboxFusion's `POST /run_code` (github.com/bytedance/SandboxFusion, sandbox/server/sandbox_api.py).

One request runs one Python program. The client follows no redirect and uses no proxy, so that a program is sent only to
the address in the recipe.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# HTTP statuses after which the program certainly did not run: the server was busy, or the address is wrong or needs
# permission. After any other error status the program may have run, and may be the cause.
BUSY = {429, 503}
REFUSED = {301, 302, 303, 307, 308, 401, 403, 404, 405}


@dataclass(frozen=True)
class RemoteRun:
    """The result of one program on the server.

    Attributes:
        timed_out: the server stopped the program at its time limit.
        code: exit code, or minus the number of the signal that ended the program; None if it timed out.
        stdout: standard output of the program.
        stderr: standard error of the program.
        seconds: wall time in seconds, measured by the server.
    """

    timed_out: bool
    code: int | None
    stdout: str
    stderr: str
    seconds: float


class ServerFaultError(Exception):
    """The server returned no result.

    Attributes:
        reached: True if the program may have run before the fault, and so may have caused it.
    """

    def __init__(self, message: str, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


class FusionClient:
    """A client of the server at one address. Thread-safe; each request has its own connection.

    Args:
        url: http://host:port or https://host:port, with or without a path that ends in /run_code.
        grace: seconds that a request may take beyond the program's own limit, for the server's queue and the network.

    Attributes:
        closed: event that is set when the client is closed.

    Raises:
        ValueError: the address cannot be used; the message has the reason.
    """

    def __init__(self, url: str, grace: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"found {url!r} as the address of the sandbox server, expected http://host:port or https://host:port"
            )
        # The message does not quote the address, as it may contain a password.
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("the address of the sandbox server must not have a user name, password, query or fragment")
        self.url = url
        self.closed = threading.Event()
        self._live: set[socket.socket] = set()
        self._grace = grace
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        path = parts.path.rstrip("/")
        self._path = path if path.endswith("/run_code") else path + "/run_code"

    def run(self, program: str, stdin: str, *, seconds: float, memory: int, largest_reply: int) -> RemoteRun:
        """Run a Python program on the server and return its result.

        Args:
            program: source of the program; must be encodable as UTF-8.
            stdin: standard input of the program.
            seconds: wall time that the program may take.
            memory: bytes of memory that the program may use, if the server enforces such a limit.
            largest_reply: largest reply, in bytes, that the client reads.

        Raises:
            ServerFaultError: the server returned no result; the message has the reason.
        """
        request = {
            "code": program,
            "language": "python",
            "stdin": stdin,
            "compile_timeout": seconds,
            "run_timeout": seconds,
            "memory_limit_MB": max(1, memory >> 20),
        }
        status, body = self._post(json.dumps(request).encode(), seconds + self._grace, largest_reply)
        if status in BUSY:
            raise ServerFaultError(f"{self.url} is busy: HTTP {status}", reached=False)
        if status in REFUSED:
            raise ServerFaultError(
                f"{self.url} is not a sandbox server, or it refused the request: HTTP {status}", reached=False
            )
        if status != 200:
            raise ServerFaultError(f"{self.url} answered HTTP {status}", reached=True)
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            raise ServerFaultError(f"the answer of {self.url} is not JSON", reached=True) from None
        return self._read(reply)

    def close(self) -> None:
        """End the requests of all threads and refuse new ones. A request that is connecting may take 10 s more."""
        self.closed.set()
        for connected in self._live.copy():
            _cut(connected)

    def _post(self, body: bytes, seconds: float, largest_reply: int) -> tuple[int, bytes]:
        """Send one request, and return the status and the body of the answer.

        After `seconds` the connection is cut, even if the server is still sending.
        """
        # `connected` separates faults before the program could run from faults that it may have caused.
        deadline = time.monotonic() + seconds
        connection = self._kind(self._host, self._port, timeout=min(seconds, 10.0))
        connected = False
        try:
            if self.closed.is_set():
                raise ConnectionAbortedError("closed by this side")
            connection.connect()
            connected = True
            with self._cut_at(deadline, connection.sock):
                connection.sock.settimeout(seconds)
                connection.request("POST", self._path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                reply = response.read(largest_reply + 1)  # one byte more, to notice a reply that is too long
            if time.monotonic() > deadline:
                raise TimeoutError
        except TimeoutError:
            raise ServerFaultError(f"{self.url} did not answer within {seconds:g} s", reached=connected) from None
        # A connection that `_cut` has shut down fails with one of many errors; the clock tells that it was a timeout.
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline:
                raise ServerFaultError(f"{self.url} did not answer within {seconds:g} s", reached=connected) from None
            what = "closed the connection early" if connected else "cannot be reached"
            raise ServerFaultError(f"{self.url} {what}: {error or type(error).__name__}", reached=connected) from None
        finally:
            connection.close()
        if len(reply) > largest_reply:
            raise ServerFaultError(f"the answer of {self.url} has more than {largest_reply} bytes", reached=True)
        return response.status, reply

    @contextmanager
    def _cut_at(self, deadline: float, connected: socket.socket) -> Iterator[None]:
        """Cut the connection at the deadline, or when the client is closed.

        Takes the socket rather than the `HTTPConnection`, which drops its reference to the socket when the server
        announces that it will close the connection.
        """
        cut = threading.Timer(deadline - time.monotonic(), _cut, [connected])
        cut.daemon = True
        cut.start()
        self._live.add(connected)
        try:
            # Check after `add`: a thread that closes the client from now on finds the socket in `_live`.
            if self.closed.is_set():
                raise ConnectionAbortedError("closed by this side")
            yield
        finally:
            self._live.discard(connected)
            cut.cancel()

    def _read(self, reply: Any) -> RemoteRun:
        """Return the result in a reply, any field of which may be missing or have a wrong type."""
        if not isinstance(reply, dict) or reply.get("status") not in ("Success", "Failed"):
            message = reply.get("message") if isinstance(reply, dict) else None
            said = f": {message[:200]}" if isinstance(message, str) and message else ""
            raise ServerFaultError(f"{self.url} could not run the program{said}", reached=True)
        result = reply.get("run_result")
        if not isinstance(result, dict):
            raise ServerFaultError(f"the answer of {self.url} has no `run_result`", reached=True)
        status, code = result.get("status"), result.get("return_code")
        seconds = result.get("execution_time")
        stdout, stderr = (result.get(name) or "" for name in ("stdout", "stderr"))
        # The server forwards what the program did, so the exit code is checked too: a huge integer or a bool is none.
        whole = isinstance(stdout, str) and isinstance(stderr, str)
        finished = status == "Finished" and isinstance(code, int) and not isinstance(code, bool) and abs(code) < 1 << 32
        if not whole or not (finished or status == "TimeLimitExceeded"):
            raise ServerFaultError(f"the `run_result` in the answer of {self.url} is not valid", reached=True)
        spent = float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else 0.0
        return RemoteRun(not finished, code if finished else None, stdout, stderr, spent)


def _cut(connected: socket.socket) -> None:
    """Shut a connection down. Unlike closing the socket, this wakes a thread that is sending or receiving."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
