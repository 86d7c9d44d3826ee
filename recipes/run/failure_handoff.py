"""What a process says last, left for the one that launched it, so that a person reads one message and not several."""

import json
import os
import time
from pathlib import Path

from gemsmith.contracts.processes import rank

WORDS = "GEMSMITH_LAST_WORDS"


class Failed(Exception):
    """A process ended with this message and exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def leave_words(message: str, code: int) -> bool:
    """Leave a process's last words for the one that launched it; False where none did."""
    folder = os.environ.get(WORDS)
    if folder is None or "RANK" not in os.environ:
        return False
    content = {"message": message, "code": code, "time": time.time()}
    Path(folder, f"{rank()}.json").write_text(json.dumps(content))
    return True
