"""The server of `gemsmith.sandboxes.fork_server`: forks, and reports how children ended. Also its workers' side."""

import gc
import json
import os
import socket
import sys

from gemsmith.sandboxes.child_main import Handler, die_with, opened, serve

_KIBIBYTES = sys.platform == "linux"  # ru_maxrss is in bytes on macOS
_SOCKET = 3


def open_server(arguments: list[str]) -> Handler:
    """The handler of "fork" and "end PID"; workers answer with the handler that the entry gives."""
    control = socket.socket(fileno=int(arguments[0]))
    handler = opened(arguments[1], arguments[2:])
    gc.collect()
    gc.freeze()  # or the workers' collectors would copy every page that they share

    def answer(request: bytes) -> bytes:
        word, _, argument = request.partition(b" ")
        if word == b"fork":
            _, fds, _, _ = socket.recv_fds(control, 1, 1)
            return str(_fork(fds[0], handler)).encode()
        _, status, usage = os.wait4(int(argument), 0)
        peak = usage.ru_maxrss * (1024 if _KIBIBYTES else 1)
        return json.dumps([os.waitstatus_to_exitcode(status), peak]).encode()

    return answer


def _fork(fd: int, handler: Handler) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        os.close(fd)
        return pid
    try:
        os.dup2(fd, _SOCKET)
        os.closerange(_SOCKET + 1, 1 << 16)  # the server's own pipes, which must close when the server ends
        die_with(server)
        serve(os.fdopen(os.dup(_SOCKET), "rb"), os.fdopen(_SOCKET, "wb"), handler)
    finally:
        os._exit(0)
