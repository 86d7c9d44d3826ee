"""A cache of verdicts, so that equal questions are verified once."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from typing import Generic, TypeVar

from gemsmith.sandboxes.verdict import Status, Verdict

REMEMBERED = 65_536
"""Number of verdicts kept; the least recently used one is dropped first."""
LASTING = (Status.RIGHT, Status.WRONG, Status.UNPARSABLE)
"""Statuses that depend on the completion alone; all others may differ on another run of the same question."""

Question = TypeVar("Question", bound=Hashable)


class VerdictMemory(Generic[Question]):
    """A cache of the most recently used verdicts, keyed by question. Thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[Question, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, question: Question) -> Verdict | None:
        """Return the cached verdict on a question, with `seconds` 0; None if the cache does not have it."""
        with self._lock:
            verdict = self._known.get(question)
            if verdict is not None:
                self._known.move_to_end(question)
            return verdict

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Cache a verdict, unless its status is one that may differ on another run."""
        if verdict.status not in LASTING:
            return
        with self._lock:
            self._known[question] = replace(verdict, seconds=0.0)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
