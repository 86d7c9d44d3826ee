"""Runs inside a child process: imports a python reward's function or class and calls it. Imports no torch of its own.

The answer to every request is a JSON object with either `scores` or `fault` (and the `index` of the sample, if known).
"""

import asyncio
import inspect
import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.contracts.target import imported_function, raised
from gemsmith.rl.rewards.plugins.options import ONLY_TRL, option_fault, shown
from gemsmith.rl.rewards.plugins.process import guard
from gemsmith.rl.rewards.plugins.signature import Parameters, signature_fault


class _UnfitError(Exception):
    """The target cannot be a reward: `args[0]` says why."""


def open_function(arguments: list[str]) -> Callable[[bytes], bytes]:
    """The handler for `arguments`: guard's descriptor, path or "", module or "", name, recipe folder, options as JSON.

    The first request is empty and imports the target, so that a fault of it arrives as data and not as a lost process,
    and its memory is watched. Every other one is the pickled keyword arguments of a call.
    """
    run_ends, path, module, name, root, options = arguments
    guard(int(run_ends))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is printed before a hang is the clue to it
    worker = os.getpid()
    caller: _Caller | None = None

    def answer(request: bytes) -> bytes:
        nonlocal caller
        try:
            if caller is None:
                caller = _Caller(imported_function(path, module, name, root), json.loads(options))
            reply = caller(pickle.loads(request)) if request else json.dumps({"scores": []}).encode()
        except _UnfitError as error:
            reply = _said(str(error))
        except BaseException as error:  # an exit as well: it is theirs, and a fault with a place
            reply = _said(raised(error, __file__) + hint(error))
        if os.getpid() != worker:
            os._exit(0)  # a fork of the user's came out of their code: it must not answer as well
        return reply

    return answer


class _Caller:
    """Calls a function with the options, or an instance of a class that is constructed with them."""

    def __init__(self, target: Callable[..., Any], options: dict[str, Any]) -> None:
        if fault := option_fault(target, options):
            raise _UnfitError(fault)
        constructed = inspect.isclass(target)
        self._function: Callable[..., Any] = target(**options) if constructed else target
        self._options = {} if constructed else options
        if not callable(self._function):
            raise _UnfitError(f"{shown(target)} has no method __call__(self, prompts, completions, **columns)")
        self._parameters = _parameters(self._function)
        if fault := signature_fault(self._parameters, {}):
            raise _UnfitError(fault)
        self._runner = asyncio.Runner()  # one loop for all calls, as a connection that is kept belongs to its loop

    def __call__(self, given: dict[str, Any]) -> bytes:
        keywords = {**given, **self._options}
        missing = [name for name in self._parameters.required if name not in keywords]
        if missing:
            if missing[0] in ONLY_TRL:
                return _said(ONLY_TRL[missing[0]])
            has = [name for name in given if name not in ("prompts", "completions")]
            return _said(
                f"the function needs {missing[0]!r}, which is neither a column of the data ({', '.join(has)}) nor an "
                f"option{did_you_mean(missing[0], has).rstrip('?')}"
            )
        if not self._parameters.any_keyword:
            keywords = {name: value for name, value in keywords.items() if name in self._parameters.accepted}
        result = self._function(**keywords)
        if inspect.isawaitable(result):
            result = self._runner.run(_awaited(result))
        return _scores(result, len(given["completions"]))


def hint(error: BaseException) -> str:
    """What a mistake that many make is, in brackets; nothing of another one."""
    if isinstance(error, TypeError) and "string indices must be integers" in str(error):
        return " (prompts and completions are plain text here, not lists of messages: write c, not c[0]['content'])"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            " (a file is imported by itself: `import neighbour` finds one beside it; or name package.module:function)"
        )
    return ""


async def _awaited(result: Any) -> Any:
    return await result


def _parameters(function: Callable[..., Any]) -> Parameters:
    kinds = inspect.Parameter
    parameters = list(inspect.signature(function).parameters.values())
    keyword = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    return Parameters(
        accepted=[p.name for p in keyword],
        required=[p.name for p in keyword if p.default is kinds.empty],
        any_keyword=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
        positional_only=[p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY and p.default is kinds.empty],
    )


def _scores(result: Any, count: int) -> bytes:
    """Check what came back: one number or None for each completion. Arrays and tensors are taken by their `tolist`."""
    values = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(values, list | tuple):
        return _said(f"it returned {_a(type(result).__name__)} instead of a list of numbers")
    if len(values) != count:
        return _said(f"it returned {len(values)} scores for {count} completions")
    scores: list[float | None] = []
    for index, value in enumerate(values):
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            scores.append(None if value is None else float(value))
        except (TypeError, ValueError, OverflowError):
            return _said(f"it returned {str(value)[:60]!r} ({type(value).__name__}) instead of a number", index)
    return json.dumps({"scores": scores}).encode()


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"


def _said(fault: str, index: int | None = None) -> bytes:
    return json.dumps({"fault": fault, "index": index}).encode()
