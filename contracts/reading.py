"""The one place where an error of reading a file becomes a sentence that names the file.

Every reader of a file that a user, a run or another program wrote goes through `reading` or `read_json`: a parser may
raise anything for a damaged file, and none of it is a fault of this code.
"""

import errno
import json
import pickle
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import RunError, UserError

NOT_OF_THE_FILE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
LONGEST_REASON = 200


@contextmanager
def reading(path: Path | str, expected: str, remedy: str) -> Iterator[None]:
    """Turn any error of the block, which reads and interprets a file, into one sentence.

    Args:
        path: the file, or the folder whose files are read together.
        expected: what the file should be, such as "the record of a stage".
        remedy: what the user can do, as an imperative.

    Raises:
        UserError: the block failed; errors that are sentences already pass unchanged, and so do a full disk and a
            device without memory.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NOT_OF_THE_FILE:
            raise
        if type(error).__name__ == "OutOfMemoryError":  # torch's: the device is full, whatever the file is
            raise
        raise UserError(f"{path} could not be read ({reason_of(error)}): expected {expected}; {remedy}.") from error


def read_json(path: Path, expected: str, remedy: str, *, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: the file.
        expected: as for `reading`.
        remedy: as for `reading`.
        keys: names that the object must have.

    Raises:
        UserError: the file does not exist, is no JSON, or holds something other than an object with these names.
    """
    with reading(path, expected, remedy):
        return as_object(json.loads(path.read_text(encoding="utf-8")), keys)


def log_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a JSON lines file that is appended to while a stage runs; [] if it does not exist.

    A line that is no object is left out: a kill may cut the line that is being written, and the next attempt writes on.
    """
    if not path.is_file():
        return []
    rows = []
    with reading(path, "a log of JSON lines", "delete it"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, RecursionError):
                rows.append(as_object(json.loads(line)))
    return rows


def as_object(content: Any, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return `content` if it is a JSON object with these names.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_kind(content)} instead of an object")
    if missing := [key for key in keys if key not in content]:
        raise ValueError(f"it lacks {missing[0]}")
    return content


def reason_of(error: BaseException) -> str:
    """Return in a few words why a file could not be read, without the vocabulary of the library that read it."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in message:
        return "it is damaged, or holds something other than tensors"
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON in line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, KeyError):
        return f"it lacks {str(error.args[0])[:LONGEST_REASON] if error.args else 'an entry'}"
    message = message.rstrip(".: ") or type(error).__name__
    return message if len(message) <= LONGEST_REASON else message[:LONGEST_REASON] + "..."


_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((UnicodeDecodeError,), "it is not UTF-8 text"),
    ((RecursionError,), "it is nested too deeply"),
    ((MemoryError, OverflowError), "a size in it is impossible, or the memory does not suffice"),
    ((EOFError, struct.error), "it ends too early"),
    ((TypeError, AttributeError, IndexError), "its content has another structure"),
)


def _kind(content: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(content), "nothing")
