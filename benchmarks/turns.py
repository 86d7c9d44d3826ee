"""Contenders that take turns, each in a process of its own, so that neither the machine's load nor memory is unfair."""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

from benchmarks.memory import peak_of, whole_peak

QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
LONG = 20  # turns and set-ups that take more seconds than this are reported
ENDING = 60  # seconds that a contender has to end what it started
MARK = "turn: "  # before what is said to `contest`, as libraries print too


@dataclass(frozen=True)
class Turn:
    """One run of a contender's work.

    Attributes:
        seconds: that it took.
        added: bytes that the process and its children grew by at most, beyond what they held before.
        whole: bytes that they held at their peaks during it.
    """

    seconds: float
    added: float
    whole: float


def take_turns(work: Callable[[], object]) -> None:
    """Run the contender's side: report that it is ready, then run `work` for every line of input and print a `Turn`.

    Between turns it returns its allocator's free memory, so that the others have the machine's memory.
    """
    print(MARK, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        added = peak_of(work)
        turn = Turn(time.perf_counter() - begun, added, whole_peak())
        ctypes.CDLL(None).malloc_trim(0)
        print(MARK + json.dumps(asdict(turn)), flush=True)


def contest(module: str, contenders: Mapping[str, str], rounds: int) -> dict[str, Turn]:
    """Medians of `rounds` turns of each contender, which is `python -m module --contend <its value>`.

    Raises:
        RuntimeError: a contender ended, as where memory is too small for it.
    """
    workers: dict[str, subprocess.Popen[str]] = {}
    found: dict[str, list[Turn]] = {name: [] for name in contenders}
    try:
        for name, asked in contenders.items():
            command = [sys.executable, "-m", module, "--contend", asked]
            workers[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **QUIET}
            )
            begun = time.perf_counter()
            _line(name, workers[name])
            _tell(f"{name}, ready", time.perf_counter() - begun)
        for _ in range(rounds):
            for name, worker in workers.items():
                found[name].append(_turn(name, worker))
    finally:
        for worker in workers.values():
            _end(worker)
    return {name: _median(turns) for name, turns in found.items()}


def _turn(name: str, worker: "subprocess.Popen[str]") -> Turn:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    turn = Turn(**json.loads(_line(name, worker)))
    _tell(name, turn.seconds)
    return turn


def _tell(what: str, seconds: float) -> None:
    if seconds > LONG:
        print(f"  {what}: {seconds:.0f} s", flush=True)


def _end(worker: "subprocess.Popen[str]") -> None:
    try:
        worker.communicate(timeout=ENDING)  # the end of its input
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.communicate()


def _line(name: str, worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith(MARK):
            return line.removeprefix(MARK)
    raise RuntimeError(f"the contender {name} ended with {worker.wait()}: is there enough memory?")


def _median(turns: list[Turn]) -> Turn:
    return Turn(*(statistics.median(getattr(turn, field.name) for turn in turns) for field in fields(Turn)))
