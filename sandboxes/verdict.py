"""What every verifier answers with, whatever it verifies."""

from dataclasses import dataclass
from enum import StrEnum

from gemsmith.sandboxes.code.evidence import Evidence


class Status(StrEnum):
    """How the verification of one completion ended."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    INFRASTRUCTURE_FAULT = "infrastructure_fault"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one completion.

    Attributes:
        score: 1 for right, else 0. An infrastructure fault says nothing about the completion: do not learn from its 0.
        status: how it ended.
        answer: the answer that was found in the completion, as it stands there; None if there was none.
        reason: one short sentence for people.
        seconds: wall time spent on this completion; 0 when the verdict was remembered.
        evidence: what was seen of the program, where one was run.
    """

    score: float
    status: Status
    answer: str | None
    reason: str
    seconds: float
    evidence: Evidence | None = None


class OverdueError(Exception):
    """A call was not done in the time that it was given. `index` is one whose verdict was still missing."""

    def __init__(self, index: int, missing: int) -> None:
        super().__init__(f"{missing} verdicts missing")
        self.index = index
        self.missing = missing
