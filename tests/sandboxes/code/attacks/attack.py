"""An attack as data: a program, the modes it is run in, and how each run must end."""

import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from textwrap import dedent

from gemsmith.sandboxes.code.jobs import CallCase, Calls, Check, Job, Limits, Stdio, StdioCase
from gemsmith.sandboxes.verdict import Status

RIGHT, WRONG, TIMEOUT, CRASHED = Status.RIGHT, Status.WRONG, Status.TIMEOUT, Status.CRASHED
MEMORY, UNPARSABLE = Status.OUT_OF_MEMORY, Status.UNPARSABLE

QUICK = Limits(cpu=0.4, case_cpu=0.4, wall_factor=12.0, memory=160 << 20)  # processor time is what ends most attacks
WAITING = replace(QUICK, wall_factor=0.0)  # for those that wait: a second of wall time
ALL_MODES = ("calls", "stdio", "check")
CALLED = ("calls", "check")

HONEST = "def solve(n):\n    return n * n\n"
EMPTY = "def solve(n):\n    return None\n"

# A program that begins so earns the reward if, and only if, one of its attempts got through; each attempt is printed.
ATTEMPTS = """
import os, sys

through = []

def solve(n):
    return n * n if through else None

def breach(name, found=""):
    through.append(name)
    print("THROUGH", name, ascii(found)[:200], flush=True)

def tried(name, action, *arguments, **keywords):
    try:
        found = action(*arguments, **keywords)
    except BaseException as error:
        print("refused", name, type(error).__name__, getattr(error, "errno", ""), flush=True)
    else:
        breach(name, found)
"""

# The same for raw system calls: anything but EPERM and ENOSYS means that the kernel looked at the arguments.
SYSTEM_CALLS = (
    ATTEMPTS
    + """
import ctypes, errno

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def system_call(number, *arguments):
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def reached(name, number, *arguments):
    try:
        found = system_call(number, *arguments)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            breach(name, error)
        else:
            print("refused", name, error.errno, flush=True)
    else:
        breach(name, found)
"""
)


@dataclass(frozen=True)
class Places:
    """Targets of the attacks on the host; its texts replace @CANARY@ and so on in a program."""

    canary: str
    port: int
    abstract: str

    def put_into(self, program: str) -> str:
        """The program with the places filled in."""
        return (
            program.replace("@CANARY@", self.canary)
            .replace("@PORT@", str(self.port))
            .replace("@ABSTRACT@", self.abstract)
            .replace("@HOSTNAME@", socket.gethostname())
        )


@dataclass(frozen=True)
class Attack:
    """One hostile program, for the task to square a number, or (`secret`) to return an unguessable text.

    Attributes:
        name: its number and what it tries.
        program: defines `solve`; in `stdio` mode a last line prints `solve(int(input()))`.
        ends: the statuses that a run may end in.
        modes: how it is run.
        shows: a regular expression that the evidence must match: what the attack itself saw, or how it died.
        limits: of the job.
        secret: whether the expected values are secrets that stand nowhere but in the job's cases or test.
        bare: run in `stdio` mode without the last line.
        test: another trusted test than the usual one, for `check` mode.
        machine: the processor it is written for; any other skips it.
    """

    name: str
    program: str
    ends: tuple[Status, ...]
    modes: tuple[str, ...] = ("calls",)
    shows: str = ""
    limits: Limits = QUICK
    secret: bool = False
    bare: bool = False
    test: str = ""
    machine: str = ""
    answers: dict[int, object] = field(default_factory=lambda: {3: 9, 7: 49, 12: 144})

    def job(self, mode: str, places: Places) -> Job:
        """The attack as a job of this mode."""
        source = places.put_into(dedent(self.program) if self.program.startswith("\n") else self.program)
        answers: dict[int, object] = {3: f"wanted-{secrets.token_hex(16)}"} if self.secret else self.answers
        if mode == "calls":
            cases = tuple(CallCase((given,), expected) for given, expected in answers.items())
            return Calls(source, "solve", cases, self.limits)
        if mode == "stdio":
            ending = "" if self.bare else "\nprint(solve(int(input())))\n"
            lines = tuple(StdioCase(f"{given}\n", f"{expected}\n") for given, expected in answers.items())
            return Stdio(source + ending, lines, self.limits)
        usual = "assert all(map(lambda n: solve(n) == n * n, range(5)))\n"
        hidden = "".join(f"assert solve({given}) == {expected!r}\n" for given, expected in answers.items())
        return Check(source, self.test or (hidden if self.secret else usual), ("solve",), self.limits)


def runs(attacks: Sequence[Attack]) -> list[tuple[Attack, str]]:
    """Each attack once for each of its modes."""
    return [(attack, mode) for attack in attacks for mode in attack.modes]


def limited(**changes: float) -> Limits:
    """The quick limits with some of them changed."""
    return replace(QUICK, **changes)  # type: ignore[arg-type]
