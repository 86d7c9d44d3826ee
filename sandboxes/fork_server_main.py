"""The server process and the worker processes of `gemsmith.sandboxes.fork_server`."""

import gc
import json
import os
import socket
import sys

from gemsmith.sandboxes.child_main import Handler, die_with, opened, serve

_KIBIBYTES = sys.platform == "linux"  # ru_maxrss is in bytes on macOS
_SOCKET = 3  # the worker's only descriptor beside the three standard ones


def open_server(arguments: list[str]) -> Handler:
    """Call the entry function, and return the server's handler of the requests "fork" and "end PID".

    Args:
        arguments: number of the control socket's descriptor, the entry "module:function", and the entry's arguments.
    """
    control = socket.socket(fileno=int(arguments[0]))
    handler = opened(arguments[1], arguments[2:])
    gc.collect()
    gc.freeze()  # keeps the workers' garbage collectors from writing to, and so copying, the pages they share

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
        # Close the worker's copies of the server's pipes. Otherwise those pipes would stay open after the server ends,
        # and the parent would not notice its end.
        os.closerange(_SOCKET + 1, 1 << 16)
        die_with(server)
        serve(os.fdopen(os.dup(_SOCKET), "rb"), os.fdopen(_SOCKET, "wb"), handler)
    finally:
        os._exit(0)
