"""The verdict, which is the result type of every verifier."""

from dataclasses import dataclass
from enum import StrEnum

from gemsmith.sandboxes.code.evidence import Evidence


class Status(StrEnum):
    """Result of verifying one completion."""

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
        score: 1 for a right completion, else 0. An infrastructure fault also has score 0, but says nothing about the
            completion: leave the sample out of training.
        status: result of the verification.
        answer: the answer found in the completion, verbatim; None if the completion has no answer.
        reason: one short sentence that explains the status to a reader.
        seconds: wall time spent on this completion; 0 if the verdict came from the cache.
        evidence: output, exit code and resource use of the program; None if no program was run.
    """

    score: float
    status: Status
    answer: str | None
    reason: str
    seconds: float
    evidence: Evidence | None = None


class OverdueError(Exception):
    """The batch missed its deadline: `missing` verdicts were unfinished, one of them at position `index`."""

    def __init__(self, index: int, missing: int) -> None:
        super().__init__(f"{missing} verdicts were missing at the deadline")
        self.index = index
        self.missing = missing
