"""The process that runs one program inside its jail: as a script, or as functions that the host calls one by one.

The program shares this process and can send any frame itself. So the host trusts nothing that arrives from here: it
compares returned values with the expected ones, and never accepts a verdict.

Frames on descriptor 3 are a length (four bytes, big endian, counts kind and body), a kind (one byte) and a body:

1. host -> runner: "S" with the program's source.
2. runner -> host, only on failure: "C" (does not compile), "L" (raised while it was loaded) or "O" (out of memory),
   with an explanation. A script's channel is then closed: its exit code and its output are the result.
3. host -> runner: "A" or "P" with the number of the call, then the function's name and arguments, encoded by `codec`.
4. runner -> host: the number of the call, with kind "V" (the value), "X" (it raised), "U" (the value is not plain data)
   or "M" (out of memory). Steps 3 and 4 repeat.
5. host -> runner: "Q". The runner exits.
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
OUT_OF_MEMORY = 71  # exit code of a job that ran out of memory; Python itself exits with 0, 1, 2 or 120
# A loaded program's process is renamed to "loaded" and the milliseconds of processor time that loading took. The host
# reads the name from /proc, which needs no frame, if it has to know whether a case has begun.
LOADED = b"loaded"
PR_SET_NAME = 15

libc = ctypes.CDLL(None)


class HostInput:
    """A buffered reader of the host's frames."""

    def __init__(self) -> None:
        self.held = b""
        self.start = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes; exit with code 0 if the host has closed the channel."""
        while len(self.held) - self.start < size:
            part = os.read(CHANNEL, 1 << 18)
            if not part:
                os._exit(0)
            self.held = self.held[self.start :] + part
            self.start = 0
        self.start += size
        return self.held[self.start - size : self.start]

    def receive(self) -> tuple[bytes, bytes]:
        """Return the kind and the body of the next frame."""
        (size,) = LENGTH.unpack(self.take(4))
        frame = self.take(size)
        return frame[:1], frame[1:]


def send(kind: bytes, body: bytes = b"") -> None:
    """Write one frame."""
    frame = memoryview(LENGTH.pack(len(body) + 1) + kind + body)
    while frame:
        frame = frame[os.write(CHANNEL, frame) :]


def main(mode: bytes) -> None:
    """Receive the program and run it in the mode that the host asked for: "S" as a script, "F" as functions."""
    channel = HostInput()
    _, source = channel.receive()
    # The program becomes `__main__`, as if the interpreter had been started with it. Python was started without
    # `site`, which defines `exit` and `quit`.
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
    # The program is in no file: give tracebacks its lines.
    linecache.cache[FILE] = (len(source), None, source.decode("utf-8", "replace").splitlines(True), FILE)
    if mode == b"S":
        run_script(code, module)
    run_functions(code, module, channel)


def run_script(code: types.CodeType, module: types.ModuleType) -> None:
    """Run the program as `python FILE` would, and exit with its exit code."""
    # The host judges a script by its exit code and output alone, so the program needs no channel.
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
    # The visible steps of an interpreter's end: wait for threads, run atexit functions, flush. `os._exit` then skips
    # the rest of its clean-up.
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
    """Run the program, then answer calls of its functions until "Q", or until the host closes the channel."""
    module.__name__ = "program"  # so that a part below `if __name__ == "__main__"` does not run
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
        # Flush before the answer: once the host has the last answer it may kill this process.
        answer, reply = call(module, kind, body)
        flush()
        send(answer, reply)


def name_process(name: bytes) -> None:
    """Set the process name that /proc/PID/comm shows."""
    libc.prctl(PR_SET_NAME, name, 0, 0, 0)


def call(module: types.ModuleType, kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Call a function of the program, and return the kind and the body of the answer.

    Args:
        module: the loaded program.
        kind: "A" for the value in canonical form, which the host compares as bytes; "P", for a judge, for the value and
            the arguments as the function left them.
        body: number of the call (four bytes), then name, arguments and keywords, encoded.
    """
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
    """Return an exception's class and message, at most 1,000 bytes."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = type(error).__name__
    return text.encode("utf-8", "replace")[:1000]


def report() -> None:
    """Print the traceback to standard error, without the frames of this file."""
    try:
        kind, error, trace = sys.exc_info()
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        traceback.print_exception(kind, error, trace)
    except BaseException:
        return


def leave(code: object = None) -> None:
    """Raise SystemExit: a replacement for `exit` and `quit`, which only `site` defines."""
    raise SystemExit(code)


def exit_code(code: object) -> int:
    """Return the exit code that the interpreter would give for the argument of `sys.exit`."""
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
    """Flush standard output and standard error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
