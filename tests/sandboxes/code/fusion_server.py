"""A small server on loopback that speaks SandboxFusion's protocol, and one that breaks it in the ways servers do."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request; the server's `answer` replies to it."""

    request_json: dict[str, Any]
    server: "FusionServer"

    def do_POST(self) -> None:
        self.request_json = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(self.request_json)
        self.server.paths.append(self.path)
        self.server.answer(self)

    def reply(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return  # the client has heard enough

    def reply_json(self, reply: object, status: int = 200) -> None:
        self.reply(json.dumps(reply).encode(), status)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at the requests themselves."""


class FusionServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(answer: Answer) -> Iterator[FusionServer]:
    server = FusionServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def result(stdout: str = "", code: int = 0, stderr: str = "", seconds: float = 0.01) -> dict[str, Any]:
    """Return the server's text about a program that ended by itself."""
    return {
        "status": "Success" if code == 0 else "Failed",
        "message": "",
        "compile_result": None,
        "run_result": {
            "status": "Finished",
            "execution_time": seconds,
            "return_code": code,
            "stdout": stdout,
            "stderr": stderr,
        },
        "files": {},
    }


TIMED_OUT = {
    "status": "Failed",
    "message": "",
    "run_result": {
        "status": "TimeLimitExceeded",
        "execution_time": 1.0,
        "return_code": None,
        "stdout": "",
        "stderr": "",
    },
}
SANDBOX_ERROR = {"status": "SandboxError", "message": "no worker", "run_result": {"status": "Error", "stderr": "x"}}


def hang(exchange: Exchange) -> None:
    exchange.server.released.wait(30)


def drip(exchange: Exchange) -> None:
    """A header line that never ends, a byte at a time: each byte resets a socket's own timeout."""
    try:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not exchange.server.released.wait(0.05):
            exchange.wfile.write(b"a")
    except OSError:
        return


def drip_body(exchange: Exchange) -> None:
    """The same after the header, over a connection that the server will close."""
    exchange.reply(b"", headers={"Content-Length": "1000000", "Connection": "close"})
    drip(exchange)


def hang_up(exchange: Exchange) -> None:
    exchange.connection.shutdown(socket.SHUT_RDWR)


def flood(exchange: Exchange) -> None:
    exchange.reply(b'{"status": "Success", "message": "' + b"a" * (8 << 20) + b'"}')


def redirect(exchange: Exchange) -> None:
    exchange.reply(b"", 307, {"Location": "http://127.0.0.1:9/run_code"})


def answering(body: bytes, status: int = 200) -> Answer:
    return lambda exchange: exchange.reply(body, status)


def answering_json(reply: object) -> Answer:
    return lambda exchange: exchange.reply_json(reply)


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
