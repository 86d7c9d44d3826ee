"""Runs one program inside its jail: as a script, or as functions that the host calls one by one.

Whatever this says is the word of the program that it shares its process with: the host takes nothing of it for a
verdict. Frames on descriptor 3 are a length (four bytes, big endian), a kind (one byte) and a body.
"""

from __future__ import annotations

import builtins
import linecache
import os
import struct
import sys
import traceback
import types
from typing import Any

import codec

CHANNEL = 3
LENGTH = struct.Struct(">I")
NUMBER = struct.Struct(">I")
FILE = "<program>"
OUT_OF_MEMORY = 71


def read_exactly(size: int) -> bytes:
    """Bytes from the host; ends the job where the host has hung up."""
    parts = []
    while size:
        part = os.read(CHANNEL, min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive() -> tuple[bytes, bytes]:
    """Kind and body of the next frame."""
    (size,) = LENGTH.unpack(read_exactly(4))
    frame = read_exactly(size)
    return frame[:1], frame[1:]


def send(kind: bytes, body: bytes = b"") -> None:
    """Write one frame."""
    frame = memoryview(LENGTH.pack(len(body) + 1) + kind + body)
    while frame:
        frame = frame[os.write(CHANNEL, frame) :]


def main(mode: bytes) -> None:
    """Do what the host asks for: "S" a script, "F" functions."""
    _, source = receive()
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
    except MemoryError:
        send(b"M", b"not enough memory to compile the program")
        os._exit(1)
    except BaseException as error:
        send(b"C", said(error))
        os._exit(1)
    linecache.cache[FILE] = (len(source), None, source.decode("utf-8", "replace").splitlines(True), FILE)
    if mode == b"S":
        run_script(code, module)
    run_functions(code, module)


def run_script(code: types.CodeType, module: types.ModuleType) -> None:
    """Run the program as the interpreter would, and end with its exit code."""
    send(b"R")
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


def run_functions(code: types.CodeType, module: types.ModuleType) -> None:
    """Run the program, then answer calls of its functions until the host hangs up."""
    module.__name__ = "program"  # no `if __name__ == "__main__"` part
    try:
        exec(code, module.__dict__)
    except MemoryError:
        send(b"M", b"not enough memory")
        os._exit(1)
    except BaseException as error:
        report()
        flush()
        send(b"X", said(error))
        os._exit(1)
    send(b"R")
    while True:
        kind, body = receive()
        answer, reply = call(module, kind, body)
        flush()
        send(answer, reply)


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
