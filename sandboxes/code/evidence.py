"""Measurements and observations of a job, besides its verdict."""

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
    """Observations of a sandbox during a job.

    Attributes:
        detail: how the job ended, finer than the verdict's status.
        backend: the isolation used ("bubblewrap", ...); "unsafe" is none.
        cases: whether each executed case passed; shorter than the job's cases if the job ended early.
        cpu: processor time of the program, in seconds.
        wall: time from the start to the end of the job, in seconds.
        max_rss: largest resident memory of the program, in bytes.
        exit: how its process ended: "0", "1", "SIGKILL", ...; empty if it never ran.
        stdout: its standard output, the first bytes only.
        stderr: its standard error, the first bytes only.
        forgeable: True if the program could have forged the verdict.
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
