"""The child's side of `gemsmith.sandboxes.child`: it answers requests with a handler until its parent ends."""

import ctypes
import importlib
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

Handler = Callable[[bytes], bytes]
_LENGTH = struct.Struct(">Q")
_PR_SET_PDEATHSIG = 1


def main(entry: str, parent: int, arguments: list[str]) -> None:
    """Call the entry function, greet the parent, then answer requests until the pipe closes."""
    die_with(parent)
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    # Requests and replies use copies of descriptors 0 and 1. The originals become /dev/null and standard error, so that
    # the handler cannot read a request, and the parent cannot mistake the handler's output for a reply.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        handler = opened(entry, arguments)
    except Exception as error:
        _reply(replies, b"F", _described(error))
        return
    _reply(replies, b"R", b"")
    serve(requests, replies, handler)


def opened(entry: str, arguments: list[str]) -> Handler:
    """Import an entry, "module:function", call it with `arguments`, and return the handler that it returns."""
    module, _, function = entry.partition(":")
    return getattr(importlib.import_module(module), function)(arguments)


def serve(requests: BinaryIO, replies: BinaryIO, handler: Handler) -> None:
    """Answer requests in order until the other side closes the pipe.

    A reply is the byte "R" and the handler's result, or the byte "F" and the exception that the handler raised.
    """
    while (request := _next(requests)) is not None:
        try:
            kind, body = b"R", handler(request)
        except Exception as error:
            kind, body = b"F", _described(error)
        _reply(replies, kind, body)


def die_with(parent: int) -> None:
    """Make this process end when its parent ends, or at once if the parent has already ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _next(requests: BinaryIO) -> bytes | None:
    header = requests.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    return requests.read(length)


def _reply(replies: BinaryIO, kind: bytes, body: bytes) -> None:
    replies.write(_LENGTH.pack(1 + len(body)) + kind + body)
    replies.flush()


def _described(error: Exception) -> bytes:
    return f"{type(error).__name__}: {error}".encode(errors="replace")
