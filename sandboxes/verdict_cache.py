"""Verdicts that were given before, so that equal questions are asked once."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from typing import Generic, TypeVar

from gemsmith.sandboxes.verdict import Status, Verdict

REMEMBERED = 65_536
LASTING = (Status.RIGHT, Status.WRONG, Status.UNPARSABLE)
"""Verdicts that say nothing about the machine."""

Question = TypeVar("Question", bound=Hashable)


class VerdictMemory(Generic[Question]):
    """The verdicts used last, by question. Usable from any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[Question, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, question: Question) -> Verdict | None:
        """The verdict on a question, at 0 seconds, if it was kept."""
        with self._lock:
            verdict = self._known.get(question)
            if verdict is not None:
                self._known.move_to_end(question)
            return verdict

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Remember a verdict, unless the machine had a hand in it."""
        if verdict.status not in LASTING:
            return
        with self._lock:
            self._known[question] = replace(verdict, seconds=0.0)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
