"""Runs trusted test code in a jail of its own; the program under test is reached only by call, in another jail.

Values that come back are decoded as plain data, so nothing of the program's classes is here. Frames as in runner.py.
"""

from __future__ import annotations

import builtins
import os
import sys
import types
from typing import Any, Callable  # noqa: UP035 (Python 3.9)

import codec
import runner

UNFIT = (StopIteration, StopAsyncIteration)  # in a test they would end a loop over the program's answers, not fail it


class Program:
    """The program in the other jail."""

    def __init__(self, channel: runner.HostInput) -> None:
        self.channel = channel
        self.calls = 0

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call one of its functions; arguments that it changed are changed here too."""
        number = runner.NUMBER.pack(self.calls)
        self.calls += 1
        runner.send(b"P", number + codec.encode((name, list(arguments), keywords)))
        kind, body = self.channel.receive()
        if kind == b"V":
            try:
                value, left, left_keywords = codec.decode(body[4:])
                put_back(arguments, left)
                put_back(tuple(keywords.values()), [left_keywords[key] for key in keywords])
            except (ValueError, TypeError, KeyError) as error:
                runner.send(b"G", runner.said(error))  # no test may swallow this
                os._exit(0)
            return value
        raise raised(kind, body[4:].decode("utf-8", "replace"))


def put_back(arguments: tuple[Any, ...], left: list[Any]) -> None:
    """Give lists, sets, dictionaries and byte arrays the contents that the program left in them."""
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
    """The exception that stands for the program's: of the same built-in class, where that is harmless."""
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
    """A function that calls the program's function of this name."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return program.call(name, arguments, keywords)

    call.__name__ = call.__qualname__ = name
    return call


def main(mode: bytes) -> None:
    """Run the test and tell the host how it ended: "E" at its end, "N" by an exception, "G" by an unreadable answer."""
    channel = runner.HostInput()
    _, body = channel.receive()
    test, names = codec.decode(body)
    program = Program(channel)
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
