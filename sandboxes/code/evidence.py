"""What a sandbox saw of a job, beside the verdict on it."""

from dataclasses import dataclass
from typing import Literal

Detail = Literal[
    "pass",
    "fail",
    "timeout",
    "memory",
    "output_limit",
    "crash",
    "compile_error",
    "protocol",
    "invalid_test",
    "infra_error",
]


@dataclass(frozen=True)
class Evidence:
    """What a sandbox saw of a job.

    Attributes:
        detail: how the job ended, finer than the verdict's status.
        backend: what kept the program in ("bubblewrap", ...); "unsafe" is nothing.
        cases: whether each case that was run passed; shorter than the job's cases where it was ended early.
        cpu: seconds of processor time of the program.
        wall: seconds from the first to the last thing done for the job.
        max_rss: largest resident memory of the program, bytes.
        exit: how its process ended: "0", "1", "SIGKILL", ...; empty where it never ran.
        stdout: what it printed, the first bytes only.
        stderr: what it wrote to standard error, the first bytes only.
        forgeable: whether the program could have made the verdict itself.
    """

    detail: Detail
    backend: str
    cases: tuple[bool, ...] = ()
    cpu: float = 0.0
    wall: float = 0.0
    max_rss: int = 0
    exit: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    forgeable: bool = False
