"""Reader of JSON lines files."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import JsonLinesData
from gemsmith.curation.sources.rows import SourceRow, file_of


def read_json_lines(config: JsonLinesData, *, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """Return the rows of a file."""
    return _lines(file_of(config, name=name, root=root))


def _lines(path: Path) -> Iterator[SourceRow]:
    with path.open("rb") as file:
        yield from json_lines(file, str(path))


def json_lines(file: Iterable[bytes], name: str) -> Iterator[SourceRow]:
    """Yield the rows of an open JSON lines file, one object per line; blank lines are skipped.

    Raises:
        UserError: a line is something else; the message names it as `name`:number.
    """
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            columns = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from error
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}, column {error.colno}: not valid JSON ({error.msg}); expected one JSON object per line."
            ) from error
        except RecursionError as error:
            raise UserError(f"{where}: nested too deeply; expected one flat JSON object per line.") from error
        if not isinstance(columns, dict):
            raise UserError(f"{where}: found a JSON {_json_kind(columns)}; expected one JSON object per line.")
        yield SourceRow(where, columns)


def _json_kind(value: Any) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return kinds[type(value)]
