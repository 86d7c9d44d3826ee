"""Worker that imports a python reward's function or class in a child process and calls it. Imports no torch itself.

The reply to each request is a JSON object with either `scores` or `fault` (and the `index` of the sample, if known).
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
    """Raised if the target cannot be used as a reward; the message gives the reason."""


def open_function(arguments: list[str]) -> Callable[[bytes], bytes]:
    """Return the request handler of the worker process.

    The first request is empty and imports the target. Importing in a request, not at start-up, reports a failure as
    data instead of a lost process, and happens under the memory limit. All other requests are the pickled keyword
    arguments of a call.

    Args:
        arguments: file descriptor for `guard`, path or "", module or "", name, recipe folder, and options as JSON.
    """
    run_ends, path, module, name, root, options = arguments
    guard(int(run_ends))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # output before a hang must not stay in the buffer
    worker = os.getpid()
    caller: _Caller | None = None

    def answer(request: bytes) -> bytes:
        nonlocal caller
        try:
            if caller is None:
                caller = _Caller(imported_function(path, module, name, root), json.loads(options))
            reply = caller(pickle.loads(request)) if request else json.dumps({"scores": []}).encode()
        except _UnfitError as error:
            reply = _fault(str(error))
        except BaseException as error:  # SystemExit too: user code that exits is reported with its line
            reply = _fault(raised(error, __file__) + hint(error))
        if os.getpid() != worker:
            os._exit(0)  # user code forked and its child returned here: only the worker may reply
        return reply

    return answer


class _Caller:
    """Callable that calls a function with the options, or an instance of a class that is constructed with them."""

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
        self._runner = asyncio.Runner()  # one event loop for all calls, because open connections belong to it

    def __call__(self, given: dict[str, Any]) -> bytes:
        keywords = {**given, **self._options}
        missing = [name for name in self._parameters.required if name not in keywords]
        if missing:
            if missing[0] in ONLY_TRL:
                return _fault(ONLY_TRL[missing[0]])
            has = [name for name in given if name not in ("prompts", "completions")]
            return _fault(
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
    """Return an explanation of a common mistake, in brackets, or an empty string."""
    if isinstance(error, TypeError) and "string indices must be integers" in str(error):
        return " (prompts and completions are plain text, not lists of messages: write c, not c[0]['content'])"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            " (a file is imported without a package: use `import neighbour` for a file in the same folder, or set "
            "`target` to package.module:function)"
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
    """Check that the result has one number or None per completion, and encode it; arrays are converted by `tolist`."""
    values = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(values, list | tuple):
        return _fault(f"it returned {_a(type(result).__name__)} instead of a list of numbers")
    if len(values) != count:
        return _fault(f"it returned {len(values)} scores for {count} completions")
    scores: list[float | None] = []
    for index, value in enumerate(values):
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            scores.append(None if value is None else float(value))
        except (TypeError, ValueError, OverflowError):
            return _fault(f"it returned {str(value)[:60]!r} ({type(value).__name__}) instead of a number", index)
    return json.dumps({"scores": scores}).encode()


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"


def _fault(fault: str, index: int | None = None) -> bytes:
    return json.dumps({"fault": fault, "index": index}).encode()
