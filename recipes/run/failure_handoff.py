"""Hand a worker process's failure to the process that launched it, so that the user sees one message, not several.

The launcher sets an environment variable to a folder; each worker that fails writes one file there, `RANK.json`.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.processes import rank
from gemsmith.contracts.reading import read_json

FOLDER_VARIABLE = "GEMSMITH_FAILURE_HANDOFF"


class ProcessFailedError(Exception):
    """A worker process failed with this message and exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def launched() -> bool:
    """Return whether `gemsmith run --processes` started this process."""
    return FOLDER_VARIABLE in os.environ and "RANK" in os.environ


def hand_off_failure(message: str, code: int) -> bool:
    """Write a failure's message and exit code for the launcher; return False if no launcher started this process."""
    if not launched():
        return False
    content = {"message": message, "code": code, "time": time.time()}
    Path(os.environ[FOLDER_VARIABLE], f"{rank()}.json").write_text(json.dumps(content))
    return True


def read_failures(folder: Path) -> dict[int, dict[str, Any]]:
    """Return `message`, `code` and `time` of each failure that the workers wrote to `folder`, by rank."""
    found = {}
    for path in folder.glob("*.json"):
        with suppress(UserError):  # a process that was killed while it wrote has handed off nothing
            found[int(path.stem)] = read_json(path, "a failure", "", keys=("message", "code", "time"))
    return found
