"""The child's side of `gemsmith.sandboxes.child`: reads requests, lets a handler answer, and leaves with its parent."""

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
    """Call the entry function, greet the parent, then answer until the pipe closes."""
    die_with(parent)
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever the handler prints must not be taken for a reply
    try:
        handler = opened(entry, arguments)
    except Exception as error:
        _reply(replies, b"F", _described(error))
        return
    _reply(replies, b"R", b"")
    serve(requests, replies, handler)


def opened(entry: str, arguments: list[str]) -> Handler:
    """The handler that an entry, "module:function", gives for these arguments."""
    module, _, function = entry.partition(":")
    return getattr(importlib.import_module(module), function)(arguments)


def serve(requests: BinaryIO, replies: BinaryIO, handler: Handler) -> None:
    """Answer requests in order until there are no more."""
    while (request := _next(requests)) is not None:
        try:
            kind, body = b"R", handler(request)
        except Exception as error:
            kind, body = b"F", _described(error)
        _reply(replies, kind, body)


def die_with(parent: int) -> None:
    """End when the parent ends; at once if it is gone already."""
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
