"""A soak of the code sandbox: honest and hostile jobs mixed, from threads, maps and asyncio; then what is left behind.

`make fidelity`, or `python -m benchmarks.soak [--quick] [--jobs N] [--backend NAME] [--json PATH]`. Exit code 1 when a
verdict is wrong, a call hangs, or a process, a descriptor or memory is left behind.
"""

import argparse
import asyncio
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Row, print_rows, write_rows
from gemsmith.sandboxes.code.jobs import Job
from gemsmith.sandboxes.code.sandbox import Sandbox
from gemsmith.sandboxes.code.selection import open_sandbox
from gemsmith.sandboxes.verdict import Status, Verdict
from tests.sandboxes.code.attacks.attack import ALL_MODES, HONEST, Attack
from tests.sandboxes.code.attacks.faults import DEEPEST, LIMITS, QUICK, inject
from tests.sandboxes.code.attacks.host import Host, descendants, open_descriptors, resident_bytes
from tests.sandboxes.code.attacks.trial import chosen, healthy

HONEST_SHARE = 0.8
BATCH = 60
LONGEST = 30.0  # seconds that a job may take in all, waiting in the queue of its batch not counted
TYPED = """
from typing import List

def solve(n: int) -> int:
    squares: List[int] = [k * k for k in range(n + 1)]
    return squares[n]
"""
FAIR = [
    Attack("square", HONEST, (Status.RIGHT,), ALL_MODES),
    Attack("typed square", TYPED, (Status.RIGHT,), ALL_MODES),
    Attack("seven squares", TYPED, (Status.RIGHT,), answers={n: n * n for n in range(7)}),
    Attack("an error", "def solve(n):\n    return n + 1\n", (Status.WRONG,), ALL_MODES),
    Attack("an exception", "def solve(n):\n    return [][n]\n", (Status.WRONG,), ALL_MODES),
]


@dataclass(frozen=True)
class Planned:
    """One job of the soak, and how it may end."""

    name: str
    job: Job
    ends: tuple[Status, ...]
    honest: bool


def plan(count: int, seed: int, host: Host) -> list[Planned]:
    """Jobs in a random order: four of five are honest, the others are drawn from all attacks."""
    draw = random.Random(seed)
    fair = [(attack, mode) for attack in FAIR for mode in attack.modes]
    hostile = [run for run in chosen([], list(ALL_MODES)) if len(run[0].program) < 1 << 20]
    planned = []
    for _ in range(count):
        honest = draw.random() < HONEST_SHARE
        attack, mode = draw.choice(fair if honest else hostile)
        planned.append(Planned(f"{attack.name} ({mode})", attack.job(mode, host.places), attack.ends, honest))
    return planned


def answered(sandbox: Sandbox, batch: Sequence[Planned], turn: int, threads: ThreadPoolExecutor) -> list[Verdict]:
    """Return the verdicts of a batch, requested by `map`, by threads, or from asyncio, in turn."""
    jobs = [planned.job for planned in batch]
    if turn % 3 == 0:
        return sandbox.map(jobs, within=LONGEST * len(jobs))
    if turn % 3 == 1:
        return list(threads.map(sandbox.run, jobs, timeout=LONGEST * len(jobs)))

    async def together() -> list[Verdict]:
        return list(await asyncio.gather(*(sandbox.run_async(job) for job in jobs)))

    return asyncio.run(asyncio.wait_for(together(), LONGEST * len(jobs)))


@dataclass(frozen=True)
class Level:
    """Resources that a process holds at one moment."""

    descriptors: int
    own_bytes: int
    jail_bytes: int


def level() -> Level:
    """Descriptors and memory of this process, and memory of all below it."""
    return Level(open_descriptors(), resident_bytes(), sum(resident_bytes(process) for process in descendants()))


def soak(backend: str, count: int, seed: int) -> list[Row]:
    """Run `count` jobs and return a row for each thing that must not be."""
    wrong: Counter[str] = Counter()
    seconds: list[float] = []
    slowest = 0.0
    before = descendants()
    with Host() as host, ThreadPoolExecutor(4) as threads:
        planned = plan(count, seed, host)
        with open_sandbox(backend, workers=2) as sandbox:
            healthy(sandbox)
            answered(sandbox, [one for one in planned if one.honest][:BATCH], 1, threads)
            host.settle()
            start, begun = level(), time.monotonic()
            for turn, first in enumerate(range(0, count, BATCH)):
                batch = planned[first : first + BATCH]
                for one, verdict in zip(batch, answered(sandbox, batch, turn, threads), strict=True):
                    slowest = max(slowest, verdict.seconds)
                    if verdict.status not in one.ends:
                        wrong[f"{one.name}: {verdict.status} ({verdict.reason[:200]})"] += 1
                    elif one.honest:
                        seconds.append(verdict.seconds)
            elapsed = time.monotonic() - begun
            healthy(sandbox)
            problems = host.problems()
            end = level()
    survivors = descendants() - before
    for name, times in wrong.most_common():
        print(f"wrong, {times} times: {name}")
    for problem in problems:
        print(f"on the host: {problem}")
    label = f"{backend}, {count} jobs"
    centiles = [1e3 * value for value in statistics.quantiles(seconds, n=1000)]
    return [
        Row(f"{label}: wrong verdicts", wrong.total(), "jobs", "none", 0, tolerance=0),
        Row(f"{label}: slowest job", slowest, "s", "limit", 0, tolerance=LONGEST),
        Row(f"{label}: problems on the host", len(problems), "", "none", 0, tolerance=0),
        Row(f"{label}: processes left after close", len(survivors), "", "none", 0, tolerance=0),
        Row(f"{label}: descriptors", end.descriptors, "", "at the start", start.descriptors, tolerance=2),
        Row(
            f"{label}: own memory", end.own_bytes / 2**20, "MiB", "at the start", start.own_bytes / 2**20, tolerance=24
        ),
        Row(
            f"{label}: jails' memory",
            end.jail_bytes / 2**20,
            "MiB",
            "at the start",
            start.jail_bytes / 2**20,
            tolerance=16,
        ),
        Row(f"{label}: honest jobs, p50", centiles[499], "ms", "", 0),
        Row(f"{label}: honest jobs, p99", centiles[989], "ms", "", 0),
        Row(f"{label}: jobs a second", count / elapsed, "1/s", "", 0),
    ]


def fault_rows(backend: str, rounds: int) -> list[Row]:
    """Every process of a sandbox killed and stopped at random moments: how long the call took, and the next verdict."""
    draw, slowest, bad = random.Random(0), 0.0, 0
    before = descendants()
    with open_sandbox(backend, workers=1) as sandbox:
        sandbox.run(QUICK)
        for depth in range(1, DEEPEST + 1):
            for number in [signal.SIGKILL, signal.SIGSTOP] * rounds:
                found = inject(sandbox, depth, number, draw.uniform(0, 0.6))
                slowest = max(slowest, found.seconds)
                after = sandbox.run(QUICK)
                if not found.fair or after.status is not Status.RIGHT:
                    bad += 1
                    print(f"wrong: {number.name} at depth {depth}: {found}; afterwards {after.status} ({after.reason})")
        begun = time.monotonic()
    closing = time.monotonic() - begun
    label = f"{backend}, {2 * rounds * DEEPEST} faults"
    left = len(descendants() - before)
    limit = LIMITS.wall + 2
    return [
        Row(f"{label}: slowest call", slowest, "s", "deadline + 2 s", limit / 2, tolerance=limit / 2),
        Row(f"{label}: wrong verdicts, then or after", bad, "jobs", "none", 0, tolerance=0),
        Row(f"{label}: closing", closing, "s", "", 0, tolerance=5),
        Row(f"{label}: processes left after close", left, "", "none", 0, tolerance=0),
    ]


def main() -> int:
    """Soak, print, and say by the exit code whether all is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="300 jobs")
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    rows = soak(options.backend, 300 if options.quick else options.jobs, options.seed)
    rows += fault_rows(options.backend, 2 if options.quick else 8)
    print_rows(rows, "soak of the code sandbox")
    missed = [row.name for row in rows if not row.within]
    print(f"missed: {', '.join(missed)}" if missed else "no hang, no wrong verdict, nothing left behind")
    if options.json:
        write_rows(rows, options.json)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
