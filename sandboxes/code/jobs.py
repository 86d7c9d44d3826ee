"""What a sandbox can be asked to judge: plain data, one job for each program."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one job may use. A job that asks for more ends as a timeout, out of memory or crashed.

    Attributes:
        cpu: seconds of processor time of the whole job.
        case_cpu: seconds of processor time of one case.
        wall_factor: wall time is limited to `wall_factor * cpu + 1` seconds; only a backstop on a busy machine.
        memory: bytes of address space of each process.
        scratch: bytes of /tmp.
        files: number of files and folders in /tmp.
        output: bytes of standard output and of standard error, each; a job that writes more is killed.
        source: bytes of program; a longer one is not run.
        processes: how many processes the job may start; none by default, since each has its own `memory`.
        threads: how many threads it may have.
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
        """Seconds of wall time after which a job is stopped whatever it has computed."""
        return self.wall_factor * self.cpu + 1.0


@dataclass(frozen=True)
class StdioCase:
    """What a program reads, and what it must write: line by line, without regard to spaces at line ends."""

    stdin: str
    expected: str


@dataclass(frozen=True)
class CallCase:
    """One call and the value it must return.

    Attributes:
        arguments: positional arguments, plain data.
        expected: plain data. Types must match (True is not 1, a list is not a tuple); an int is equal to a float of
            the same value.
        keywords: keyword arguments.
        tolerance: numbers may differ by this much, absolutely, and by this much times the expected one.
    """

    arguments: tuple[Any, ...]
    expected: object
    keywords: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0


@dataclass(frozen=True)
class Stdio:
    """A program is run once for each case, on its standard input, and judged by its standard output."""

    source: str
    cases: tuple[StdioCase, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Calls:
    """A function of the program is called once for each case; the values are compared outside the jail."""

    source: str
    function: str
    cases: tuple[CallCase, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Check:
    """Trusted test code is run in a judge's jail, where `names` of the program can be called from afar.

    A test that ends without an exception and has called the program at least once is passed.
    """

    source: str
    test: str
    names: tuple[str, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Script:
    """The test is appended to the program and both run as one. Forgeable: for parity with published benchmarks only."""

    source: str
    test: str
    limits: Limits = Limits()


Job = Stdio | Calls | Check | Script
