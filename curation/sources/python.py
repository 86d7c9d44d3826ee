"""Reader of rows that a user's function makes in a child process."""

import json
from collections.abc import Iterator
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.target import find_target
from gemsmith.curation.config import PythonData
from gemsmith.curation.sources.rows import SourceRow
from gemsmith.sandboxes.child import Child, ChildError


def read_python(config: PythonData, *, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """Return the rows that the function makes in a child process, which is stopped at the time limit."""
    try:
        target = find_target(config.target, root)
    except UserError as error:
        raise UserError(f"data {name}: {error}") from error
    try:
        keywords = json.dumps({"seed": seed, **config.options})
    except (TypeError, ValueError) as error:
        raise UserError(f"data {name}: `options` must be plain YAML values ({error}).") from error
    try:
        child = Child(
            "gemsmith.curation.python_rows:open_rows",
            [*target.arguments(root), keywords],
            environment={"PYTHONHASHSEED": "0"},
        )
        try:
            answer = json.loads(child.call(b"", config.time_limit))
        finally:
            child.kill()
    except ChildError as error:
        raise UserError(
            f"data {name}: {config.target} made no rows: its process {error}; fix the function, or raise `time_limit`."
        ) from error
    if "fault" in answer:
        raise UserError(
            f"data {name}: {config.target} made no rows: {answer['fault']}; it is called as f(seed=..., **options) and "
            "must return dicts of plain values."
        )
    return (SourceRow(f"{config.target} row {number}", row) for number, row in enumerate(answer["rows"]))
