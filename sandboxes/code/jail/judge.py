"""The process that runs a record's test code, which is trusted, in a jail of its own.

The test reaches the program under test only by calls; the program runs in another jail, and the host passes each call
and each answer on. Answers are decoded as plain data, so no object of the program's classes can exist in this process.

Frames have the form of runner.py:

1. host -> judge: "S" with the test and the names of the program's functions.
2. judge -> host: "P", a call. The host passes it to the runner of the program.
3. host -> judge: "V", "X", "U" or "M", the runner's answer. Steps 2 and 3 repeat.
4. judge -> host: "E" (the test ended), "N" (it raised an exception) or "G" (an answer could not be decoded).
"""

from __future__ import annotations

import builtins
import os
import sys
import types
from typing import Any, Callable  # noqa: UP035 (Python 3.9)

import codec
import runner

# Exceptions of the program that must not be raised in the test: there they would end a loop over the program's answers
# instead of failing the test.
UNFIT = (StopIteration, StopAsyncIteration)


class Program:
    """A stand-in for the program under test, which runs in the other jail."""

    def __init__(self, channel: runner.HostInput) -> None:
        self.channel = channel
        self.calls = 0

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call one of the program's functions, and return its value.

        Arguments that the function changed in place are changed here too. If the function raised an exception, raise
        one of the same built-in class.
        """
        # The answer carries the number of its call, which the host checks: an answer to another call is an error.
        number = runner.NUMBER.pack(self.calls)
        self.calls += 1
        runner.send(b"P", number + codec.encode((name, list(arguments), keywords)))
        kind, body = self.channel.receive()
        if kind == b"V":
            try:
                value, left, left_keywords = codec.decode(body[4:])
                put_back(arguments, left)
                put_back(tuple(keywords.values()), [left_keywords[key] for key in keywords])
            # The program sent bytes that are not an answer. Exit rather than raise, as a test might catch an exception.
            except (ValueError, TypeError, KeyError) as error:
                runner.send(b"G", runner.said(error))
                os._exit(0)
            return value
        raise raised(kind, body[4:].decode("utf-8", "replace"))


def put_back(arguments: tuple[Any, ...], left: list[Any]) -> None:
    """Give the mutable arguments (lists, sets, dictionaries, byte arrays) the contents that the program left in them.

    Raises:
        ValueError: the program returned a different number of arguments.
    """
    if len(arguments) != len(left):
        raise ValueError("another number of arguments")
    for mine, theirs in zip(arguments, left):  # noqa: B905 (Python 3.9)
        if type(mine) is not type(theirs):
            continue
        if isinstance(mine, (list, bytearray)):
            if mine != theirs:
                mine[:] = theirs
        elif isinstance(mine, (dict, set)) and mine != theirs:
            mine.clear()
            mine.update(theirs)


def raised(kind: bytes, text: str) -> BaseException:
    """Return an exception that represents the program's: of the same built-in class if that is safe, or RuntimeError.

    Args:
        kind: "X" if the function raised an exception; any other kind is a value that could not be sent.
        text: "Class: message".
    """
    if kind != b"X":
        return RuntimeError(text)
    name, _, message = text.partition(": ")
    found = getattr(builtins, name, None)
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, UNFIT):
        try:
            return found(message)
        except TypeError:
            return RuntimeError(text)
    return RuntimeError(text)


def proxy(program: Program, name: str) -> Callable[..., Any]:
    """Return a function that calls the program's function of this name."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return program.call(name, arguments, keywords)

    call.__name__ = call.__qualname__ = name
    return call


def main(mode: bytes) -> None:
    """Run the test and report to the host how it ended: "E" at its end, "N" by an exception, "G" by a bad answer."""
    channel = runner.HostInput()
    _, body = channel.receive()
    test, names = codec.decode(body)
    program = Program(channel)
    # The test finds the program's functions as globals, as if both were one file.
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    for name in names:
        setattr(module, name, proxy(program, name))
    try:
        exec(compile(test, "<test>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        runner.send(b"N", runner.said(error))
    else:
        runner.send(b"E")
    os._exit(0)
