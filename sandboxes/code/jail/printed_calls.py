"""Calls of a program's functions whose answers are printed, for servers that only run scripts and have no channel.

Standard library only, Python 3.9 and later. Each answer is a line of a kind and, in base64, the number of the call and
the value; the first line reports whether the program was loaded ("R"). What the program itself prints goes to standard
error. The program can read all arguments from the start, and can print answers itself; it never has an expected value.
"""

from __future__ import annotations

import base64
import builtins
import os
import sys
import types

import codec
import runner


def main(source: bytes, function: str, calls: list[bytes]) -> None:
    """Load the program, and call its function once for each entry of `calls`: encoded arguments and keywords."""
    # Answers go to a copy of standard output. Descriptor 1 becomes standard error, so that nothing that the program
    # prints by ordinary means is mistaken for an answer.
    answers = os.dup(1)
    os.dup2(2, 1)

    def put(kind: bytes, body: bytes) -> None:
        line = memoryview(kind + b" " + base64.b64encode(body) + b"\n")
        while line:
            line = line[os.write(answers, line) :]

    module = types.ModuleType("program")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = sys.modules["program"] = module
    try:
        code = compile(source, runner.FILE, "exec", dont_inherit=True)
    except MemoryError:
        put(b"M", b"not enough memory to compile the program")
        os._exit(1)
    except BaseException as error:
        put(b"C", runner.said(error))
        os._exit(1)
    try:
        exec(code, module.__dict__)
    except MemoryError:
        put(b"M", b"not enough memory")
        os._exit(1)
    except BaseException as error:
        runner.report()
        runner.flush()
        put(b"X", runner.said(error))
        os._exit(1)
    put(b"R", b"")
    for number, call in enumerate(calls):
        arguments, keywords = codec.decode(call)
        request = runner.NUMBER.pack(number) + codec.encode((function, arguments, keywords))
        kind, body = runner.call(module, b"A", request)
        runner.flush()
        put(kind, body)
    os._exit(0)
