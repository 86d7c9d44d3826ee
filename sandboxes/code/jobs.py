"""Jobs of a sandbox: plain data, one job per program."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Limits of one job. A job that exceeds them ends as a timeout, out of memory or crashed.

    Attributes:
        cpu: processor time of the whole job, in seconds.
        case_cpu: processor time of one case, in seconds.
        wall_factor: wall time is limited to `wall_factor * cpu + 1` seconds; only a backstop on a busy machine.
        memory: address space of each process, in bytes.
        scratch: size of /tmp, in bytes.
        files: number of files and folders in /tmp.
        output: size of standard output and of standard error, each, in bytes; a job that writes more is killed.
        source: size of the program, in bytes; a longer one is not run.
        processes: number of processes that the job may start; none by default, because each has its own `memory`.
        threads: number of threads that it may have.
    """

    cpu: float = 10.0
    case_cpu: float = 2.0
    wall_factor: float = 3.0
    memory: int = 512 << 20
    scratch: int = 16 << 20
    files: int = 1024
    output: int = 1 << 20
    source: int = 1 << 20
    processes: int = 0
    threads: int = 16

    @property
    def wall(self) -> float:
        """Return the wall time in seconds after which a job is stopped in any case."""
        return self.wall_factor * self.cpu + 1.0


@dataclass(frozen=True)
class StdioCase:
    """Input of a program and its expected output, compared line by line, ignoring spaces at line ends."""

    stdin: str
    expected: str


@dataclass(frozen=True)
class CallCase:
    """One call and its expected value.

    Attributes:
        arguments: positional arguments, plain data.
        expected: plain data. Types must match (True is not 1, a list is not a tuple); an int equals a float of the same
            value.
        keywords: keyword arguments.
        tolerance: allowed difference of numbers, absolutely, and as a factor of the expected one.
    """

    arguments: tuple[Any, ...]
    expected: object
    keywords: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0


@dataclass(frozen=True)
class Stdio:
    """A program that runs once per case on its standard input, judged by its standard output."""

    source: str
    cases: tuple[StdioCase, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Calls:
    """A function of the program that is called once per case; the values are compared outside the jail."""

    source: str
    function: str
    cases: tuple[CallCase, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Check:
    """Trusted test code that runs in a judge's jail, where `names` of the program can be called remotely.

    A test passes if it ends without an exception and has called the program at least once.
    """

    source: str
    test: str
    names: tuple[str, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Script:
    """A test appended to the program; both run as one. Forgeable: only for comparison with published benchmarks."""

    source: str
    test: str
    limits: Limits = Limits()


Job = Stdio | Calls | Check | Script
