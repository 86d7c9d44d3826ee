"""Runs inside a child process: imports a python reward's function and calls it. Imports no torch of its own.

The answer to every request is a JSON object with either `scores` or `fault` (and the `index` of the sample, if known).
"""

import asyncio
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any

from contracts.target import imported_function, raised
from rl.rewards.target import Parameters, signature_fault


def open_function(arguments: list[str]) -> Callable[[bytes], bytes]:
    """Import the function of `arguments` (path or "", module or "", function name, recipe folder, options as JSON).

    A fault of the import is the answer to the first request, so that it arrives as data and not as a lost process.
    """
    path, module, name, root, options = arguments
    try:
        function = imported_function(path, module, name, root)
        caller: Callable[[bytes], bytes] = _Caller(function, json.loads(options))
    except BaseException as error:
        fault = _fault(error)
        return lambda request: fault
    return caller


class _Caller:
    """Answers requests: pickled keyword arguments of the function, or none of them for "are you there?"."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._function = function
        self._options = options
        self._parameters = _parameters(function)
        if fault := signature_fault(self._parameters, options):
            raise TypeError(fault)

    def __call__(self, request: bytes) -> bytes:
        given: dict[str, Any] = pickle.loads(request)
        if not given:
            return json.dumps({"scores": []}).encode()
        keywords = {**given, **self._options}
        missing = [name for name in self._parameters.required if name not in keywords]
        if missing:
            has = ", ".join(name for name in given if name not in ("prompts", "completions"))
            return _said(
                f"the function needs {missing[0]!r}, which is neither a column of the data ({has}) nor an option"
            )
        if not self._parameters.any_keyword:
            keywords = {name: value for name, value in keywords.items() if name in self._parameters.accepted}
        try:
            result = self._function(**keywords)
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result))
            return _scores(result, len(given["completions"]))
        except Exception as error:
            return _fault(error)


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
        return _said(f"it returned a {type(result).__name__} instead of a list of numbers")
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


def _said(fault: str, index: int | None = None) -> bytes:
    return json.dumps({"fault": fault, "index": index}).encode()


def _fault(error: BaseException) -> bytes:
    return _said(raised(error, __file__))
