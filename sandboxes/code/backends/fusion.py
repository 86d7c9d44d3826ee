"""A client of SandboxFusion's `POST /run_code` (github.com/bytedance/SandboxFusion, sandbox/server/sandbox_api.py).

One request runs one Python program. Redirects and proxies are not followed: the program goes where the recipe says.
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

BUSY = {429, 503}  # the server did not take the program on
REFUSED = {301, 302, 303, 307, 308, 401, 403, 404, 405}  # wrong address or no permission: no program ran


@dataclass(frozen=True)
class RemoteRun:
    """How one program ended on the server.

    Attributes:
        timed_out: the server stopped it at its time limit.
        code: its exit code, minus the signal that ended it; None if it timed out.
        stdout: what it printed.
        stderr: what it printed as errors.
        seconds: wall time by the server's clock.
    """

    timed_out: bool
    code: int | None
    stdout: str
    stderr: str
    seconds: float


class ServerFaultError(Exception):
    """The server gave no result.

    Attributes:
        reached: the program may have run before the fault, and may be its cause.
    """

    def __init__(self, message: str, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


class FusionClient:
    """A server at one address; usable from any thread, one connection per request.

    Args:
        url: http://host:port or https://host:port, with or without a path that ends in /run_code.
        grace: seconds that a request may take on top of the program's own limit: the server's queue and the network.

    Attributes:
        closed: set once it is closed.

    Raises:
        ValueError: the address cannot be used, with the reason.
    """

    def __init__(self, url: str, grace: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the sandbox server's address {url!r} is not http://host:port or https://host:port")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("the sandbox server's address must have no user name, password, query or fragment")
        self.url = url
        self.closed = threading.Event()
        self._live: set[socket.socket] = set()
        self._grace = grace
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        path = parts.path.rstrip("/")
        self._path = path if path.endswith("/run_code") else path + "/run_code"

    def run(self, program: str, stdin: str, *, seconds: float, memory: int, largest_reply: int) -> RemoteRun:
        """Run a Python program on the server.

        Args:
            program: its source; must be encodable as UTF-8.
            stdin: what it reads.
            seconds: wall time it may take.
            memory: bytes of memory it may use, as far as the server heeds this.
            largest_reply: bytes of reply to read at most.

        Raises:
            ServerFaultError: no result, with the reason.
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
            raise ServerFaultError(f"{self.url} is not a sandbox server or refuses us: HTTP {status}", reached=False)
        if status != 200:
            raise ServerFaultError(f"{self.url} answered HTTP {status}", reached=True)
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            raise ServerFaultError(f"{self.url} answered something that is not JSON", reached=True) from None
        return self._read(reply)

    def close(self) -> None:
        """End every request, also from other threads, and make no more; one that still connects has its 10 s."""
        self.closed.set()
        for connected in self._live.copy():
            _cut(connected)

    def _post(self, body: bytes, seconds: float, largest_reply: int) -> tuple[int, bytes]:
        """Status and body. Past `seconds` the connection is cut, however slowly the server still sends."""
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
                reply = response.read(largest_reply + 1)
            if time.monotonic() > deadline:
                raise TimeoutError
        except TimeoutError:
            raise ServerFaultError(f"{self.url} did not answer within {seconds:g} s", reached=connected) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline:
                raise ServerFaultError(f"{self.url} did not answer within {seconds:g} s", reached=connected) from None
            what = "broke off" if connected else "cannot be reached"
            raise ServerFaultError(f"{self.url} {what}: {error or type(error).__name__}", reached=connected) from None
        finally:
            connection.close()
        if len(reply) > largest_reply:
            raise ServerFaultError(f"{self.url} answered more than {largest_reply} bytes", reached=True)
        return response.status, reply

    @contextmanager
    def _cut_at(self, deadline: float, connected: socket.socket) -> Iterator[None]:
        """Cut a connection at the deadline, or when the client is closed.

        It is known by its socket: an `HTTPConnection` lets go of its own where the server will close it.
        """
        cut = threading.Timer(deadline - time.monotonic(), _cut, [connected])
        cut.daemon = True
        cut.start()
        self._live.add(connected)
        try:
            if self.closed.is_set():  # asked after `add`: who closes later finds the socket
                raise ConnectionAbortedError("closed by this side")
            yield
        finally:
            self._live.discard(connected)
            cut.cancel()

    def _read(self, reply: Any) -> RemoteRun:
        """The result in a reply whose every field may be wrong."""
        if not isinstance(reply, dict) or reply.get("status") not in ("Success", "Failed"):
            message = reply.get("message") if isinstance(reply, dict) else None
            said = f": {message[:200]}" if isinstance(message, str) and message else ""
            raise ServerFaultError(f"{self.url} could not run the program{said}", reached=True)
        result = reply.get("run_result")
        if not isinstance(result, dict):
            raise ServerFaultError(f"{self.url} answered without a run_result", reached=True)
        status, code = result.get("status"), result.get("return_code")
        seconds = result.get("execution_time")
        stdout, stderr = (result.get(name) or "" for name in ("stdout", "stderr"))
        whole = isinstance(stdout, str) and isinstance(stderr, str)
        finished = status == "Finished" and isinstance(code, int) and not isinstance(code, bool) and abs(code) < 1 << 32
        if not whole or not (finished or status == "TimeLimitExceeded"):
            raise ServerFaultError(f"{self.url} answered a run_result that is not understood", reached=True)
        spent = float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else 0.0
        return RemoteRun(not finished, code if finished else None, stdout, stderr, spent)


def _cut(connected: socket.socket) -> None:
    """Wake a thread that is sending or receiving; closing would not."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
