"""Child process that calls a user's function that makes rows. Imports no torch itself."""

import inspect
import json
from collections.abc import Callable
from typing import Any

from gemsmith.contracts.target import imported_function, raised


def open_rows(arguments: list[str]) -> Callable[[bytes], bytes]:
    """Return the handler of the process's single request. `arguments`: the target's own, then seed and options as JSON.

    The handler returns a JSON object with either `rows`, a list of objects, or `fault`.
    """
    *target, given = arguments

    def answer(request: bytes) -> bytes:
        try:
            return json.dumps({"rows": _rows(imported_function(*target), json.loads(given))}).encode()
        except BaseException as error:
            return json.dumps({"fault": raised(error, __file__)}).encode()

    return answer


def _rows(function: Callable[..., Any], keywords: dict[str, Any]) -> list[dict[str, Any]]:
    takes = inspect.signature(function).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes.values())
    if "seed" not in takes and not anything:
        del keywords["seed"]
    rows = list(function(**keywords))
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TypeError(f"row {number} is a {type(row).__name__}, expected a dict of columns")
        json.dumps(row)
    return rows
