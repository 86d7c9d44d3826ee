"""Runs one program inside its jail: as a script, or as functions that the host calls one by one.

Whatever this says is the word of the program that it shares its process with: the host takes nothing of it for a
verdict. Frames on descriptor 3 are a length (four bytes, big endian), a kind (one byte) and a body.
"""

from __future__ import annotations

import builtins
import ctypes
import linecache
import os
import struct
import sys
import time
import traceback
import types
from typing import Any

import codec

CHANNEL = 3
LENGTH = struct.Struct(">I")
NUMBER = struct.Struct(">I")
FILE = "<program>"
OUT_OF_MEMORY = 71
LOADED = b"loaded"  # in the name of the process, with the milliseconds that it took: the host looks when it is in doubt
PR_SET_NAME = 15

libc = ctypes.CDLL(None)


class HostInput:
    """What comes from the host."""

    def __init__(self) -> None:
        self.held = b""
        self.start = 0

    def take(self, size: int) -> bytes:
        """So many bytes; ends the job where the host has hung up."""
        while len(self.held) - self.start < size:
            part = os.read(CHANNEL, 1 << 18)
            if not part:
                os._exit(0)
            self.held = self.held[self.start :] + part
            self.start = 0
        self.start += size
        return self.held[self.start - size : self.start]

    def receive(self) -> tuple[bytes, bytes]:
        """Kind and body of the next frame."""
        (size,) = LENGTH.unpack(self.take(4))
        frame = self.take(size)
        return frame[:1], frame[1:]


def send(kind: bytes, body: bytes = b"") -> None:
    """Write one frame."""
    frame = memoryview(LENGTH.pack(len(body) + 1) + kind + body)
    while frame:
        frame = frame[os.write(CHANNEL, frame) :]


def main(mode: bytes) -> None:
    """Do what the host asks for: "S" a script, "F" functions."""
    channel = HostInput()
    _, source = channel.receive()
    builtins.exit = builtins.quit = leave  # type: ignore[assignment]
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
    except MemoryError:
        send(b"O", b"not enough memory to compile the program")
        os._exit(1)
    except BaseException as error:
        send(b"C", said(error))
        os._exit(1)
    linecache.cache[FILE] = (len(source), None, source.decode("utf-8", "replace").splitlines(True), FILE)
    if mode == b"S":
        run_script(code, module)
    run_functions(code, module, channel)


def run_script(code: types.CodeType, module: types.ModuleType) -> None:
    """Run the program as the interpreter would, and end with its exit code."""
    os.close(CHANNEL)
    status = 0
    try:
        exec(code, module.__dict__)
    except SystemExit as leaving:
        status = exit_code(leaving.code)
    except MemoryError:
        status = OUT_OF_MEMORY
        report()
    except BaseException:
        status = 1
        report()
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        if "atexit" in sys.modules:
            sys.modules["atexit"]._run_exitfuncs()
        flush()
    except BaseException:
        status = status or 1
    os._exit(status)


def run_functions(code: types.CodeType, module: types.ModuleType, channel: HostInput) -> None:
    """Run the program, then answer calls of its functions until "Q", or until the host hangs up."""
    module.__name__ = "program"  # no `if __name__ == "__main__"` part
    sys.modules["program"] = module
    try:
        exec(code, module.__dict__)
    except MemoryError:
        send(b"O", b"not enough memory")
        os._exit(1)
    except BaseException as error:
        report()
        flush()
        send(b"L", said(error))
        os._exit(1)
    name_process(b"%s %d" % (LOADED, time.process_time() * 1000))
    while True:
        kind, body = channel.receive()
        if kind == b"Q":
            os._exit(0)
        answer, reply = call(module, kind, body)
        flush()
        send(answer, reply)


def name_process(name: bytes) -> None:
    """Set the name that /proc shows."""
    libc.prctl(PR_SET_NAME, name, 0, 0, 0)


def call(module: types.ModuleType, kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Call a function: "A" for a canonical value, "P" for a value and the arguments as the function left them."""
    number, (name, arguments, keywords) = body[:4], codec.decode(body[4:])
    try:
        function: Any = getattr(module, name)
        value = function(*arguments, **keywords)
        if kind == b"A":
            return b"V", number + codec.encode(value, canonical=True)
        return b"V", number + codec.encode((value, arguments, keywords), drain=True)
    except codec.CodecError as error:
        return b"U", number + str(error).encode("utf-8", "replace")[:1000]
    except MemoryError:
        return b"M", number + b"not enough memory"
    except BaseException as error:
        if kind == b"A":
            report()
        return b"X", number + said(error)


def said(error: BaseException) -> bytes:
    """An exception in a line."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = type(error).__name__
    return text.encode("utf-8", "replace")[:1000]


def report() -> None:
    """The traceback, without this file's frames, to standard error."""
    try:
        kind, error, trace = sys.exc_info()
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        traceback.print_exception(kind, error, trace)
    except BaseException:
        return


def leave(code: object = None) -> None:
    """`exit` and `quit`, which are missing where `site` is not loaded."""
    raise SystemExit(code)


def exit_code(code: object) -> int:
    """What the interpreter makes of sys.exit's argument."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    try:
        print(code, file=sys.stderr)
    except BaseException:
        return 1
    return 1


def flush() -> None:
    """Hand over what was printed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
