"""Faults put into a sandbox from outside: a process of it killed or stopped while a job runs."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from gemsmith.sandboxes.code.jobs import CallCase, Calls, Limits
from gemsmith.sandboxes.code.sandbox import Sandbox
from gemsmith.sandboxes.verdict import Status, Verdict
from tests.sandboxes.code.attacks.attack import HONEST
from tests.sandboxes.code.attacks.host import process_parents

LIMITS = Limits(cpu=0.5, case_cpu=0.5, wall_factor=1.0)
CASES = tuple(CallCase((n,), n * n) for n in range(30))
SLOW = Calls("import time\n" + HONEST.replace("return", "time.sleep(0.02)\n    return"), "solve", CASES, LIMITS)
QUICK = Calls(HONEST, "solve", CASES[:3])
MAY_END = (Status.RIGHT, Status.CRASHED, Status.TIMEOUT, Status.INFRASTRUCTURE_FAULT)
DEEPEST = 4  # processes from this one down to a job
STUCK = 30.0


@dataclass(frozen=True)
class Injected:
    """Outcome of a job whose sandbox was hit; no verdict means that the call never returned."""

    verdict: Verdict | None
    seconds: float
    hit: list[tuple[int, str]]

    @property
    def fair(self) -> bool:
        """Return True if the verdict may be that of a right job: it may be lost, but wrong only by its own death."""
        if self.verdict is None:
            return False
        died = self.verdict.evidence is not None and self.verdict.evidence.exit == "SIGKILL"
        return self.verdict.status in MAY_END or (self.verdict.status is Status.WRONG and died)


def below(depth: int) -> list[int]:
    """The processes that stand so far below this one."""
    parents = process_parents()
    level = {os.getpid()}
    for _ in range(depth):
        level = {process for process, parent in parents.items() if parent in level}
    return sorted(level)


def command(process: int) -> str:
    """The command line of a process, its first part."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
    except OSError:
        return "gone"


def inject(sandbox: Sandbox, depth: int, number: signal.Signals, moment: float) -> Injected:
    """Run a job of 0.6 s; after `moment` seconds send a signal to the processes at this depth below this one."""
    verdicts: list[tuple[Verdict, float]] = []
    begun = time.monotonic()

    def run() -> None:
        verdict = sandbox.run(SLOW)
        verdicts.append((verdict, time.monotonic() - begun))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(moment)  # that the moment is random is the point: whatever state it meets must be survived
    hit = [(process, command(process)) for process in below(depth)]
    for process, _ in hit:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
    thread.join(STUCK)
    verdict, seconds = verdicts[0] if verdicts else (None, STUCK)
    return Injected(verdict, seconds, hit)
