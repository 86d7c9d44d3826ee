"""Comparisons whose worker is lost, and who caused it; the handler is in this file."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest

from gemsmith.sandboxes.mathematics.pool import MathPool
from gemsmith.sandboxes.verdict import Status

HANDLER = """
import json, os, time
from pathlib import Path

def open(arguments):
    return answer

def said(status):
    return json.dumps({"status": status, "reason": "as asked"}).encode()

def answer(request):
    asked = json.loads(request)
    log = Path(asked["log"])
    tries = len(log.read_text()) if log.exists() else 0
    log.write_text("x" * (tries + 1))
    if asked["word"] == "exit":
        os._exit(3)
    if asked["word"] == "exit once" and not tries:
        os._exit(3)
    if asked["word"] == "segfault":
        os.kill(os.getpid(), 11)
    if asked["word"] == "garble":
        return b"no verdict"
    if asked["word"] == "raise":
        raise ValueError("in the handler")
    if asked["word"] == "spin":
        while True:
            pass
    if asked["word"] == "wait":
        time.sleep(0.5)
    if asked["word"] == "memory":
        return said("out_of_memory")
    if asked["word"] == "eaten":
        hoard = b"x" * (600 << 20)
        os.kill(os.getpid(), 9)
    return said("right")
"""

Ask = Callable[[str], "tuple[Status, int]"]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MathPool]:
    (tmp_path / "handler_of_math_pool.py").write_text(HANDLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = MathPool(workers=1, time_limit=5.0, entry="handler_of_math_pool:open")
    yield pool
    pool.close()


@pytest.fixture
def ask(pool: MathPool, tmp_path: Path) -> Ask:
    """Return the status of one request, and the number of attempts."""

    def asked(word: str) -> tuple[Status, int]:
        log = tmp_path / word
        outcome = pool.submit({"word": word, "log": str(log)}).result(timeout=60)
        return outcome.status, len(log.read_text()) if log.exists() else 0

    return asked


def server_and_workers() -> tuple[psutil.Process, list[psutil.Process]]:
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    (server,) = [child for child in living if any("fork_server_main" in word for word in child.cmdline())]
    return server, server.children()


@pytest.mark.parametrize("word", ["exit", "segfault", "garble", "raise"])
def test_what_loses_its_worker_twice_is_crashed_and_no_fault_of_the_machine(ask: Ask, word: str):
    assert ask(word) == (Status.CRASHED, 2)
    assert ask("fine") == (Status.RIGHT, 1)


def test_what_was_there_when_a_worker_was_lost_once_is_judged_by_another(ask: Ask):
    assert ask("exit once") == (Status.RIGHT, 2)


def test_a_comparison_that_never_ends_is_not_tried_again(ask: Ask, pool: MathPool):
    pool.time_limit = 0.3
    assert ask("spin") == (Status.TIMEOUT, 1)
    assert ask("fine") == (Status.RIGHT, 1)


def test_too_little_memory_in_a_worker_that_had_served_others_is_tried_in_a_fresh_one(ask: Ask):
    assert ask("fine") == (Status.RIGHT, 1)
    assert ask("memory") == (Status.OUT_OF_MEMORY, 2)


def test_too_little_memory_in_a_fresh_worker_is_the_samples_own(ask: Ask):
    assert ask("memory") == (Status.OUT_OF_MEMORY, 1)


def test_a_kill_by_the_system_after_much_memory_is_the_samples_own(ask: Ask):
    assert ask("eaten") == (Status.OUT_OF_MEMORY, 1)


def test_a_worker_that_is_killed_from_outside_costs_one_retry_and_twice_is_a_fault(pool: MathPool, tmp_path: Path):
    for kills, status in ((1, Status.RIGHT), (2, Status.INFRASTRUCTURE_FAULT)):
        log = tmp_path / f"kills {kills}"
        future = pool.submit({"word": "wait", "log": str(log)})
        for number in range(1, kills + 1):
            wait_for(lambda: log.exists() and len(log.read_text()) == number)  # noqa: B023
            for worker in server_and_workers()[1]:
                worker.kill()
        outcome = future.result(timeout=60)
        assert outcome.status is status, outcome.reason
        assert len(log.read_text()) == 2


def test_a_worker_that_is_stopped_from_outside_costs_one_retry_and_twice_is_a_fault(pool: MathPool, tmp_path: Path):
    pool.time_limit = 0.6
    for stops, status in ((1, Status.RIGHT), (2, Status.INFRASTRUCTURE_FAULT)):
        log = tmp_path / f"stops {stops}"
        future = pool.submit({"word": "wait", "log": str(log)})
        for number in range(1, stops + 1):
            wait_for(lambda: log.exists() and len(log.read_text()) == number)  # noqa: B023
            for worker in server_and_workers()[1]:
                worker.suspend()
        outcome = future.result(timeout=60)
        assert outcome.status is status, outcome.reason
        assert outcome.seconds < 0.6 * 6 * 2


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_is_lost_is_replaced(ask: Ask, pool: MathPool, by: signal.Signals):
    assert ask("fine") == (Status.RIGHT, 1)
    server, (worker,) = server_and_workers()
    os.kill(worker.pid, signal.SIGKILL)
    os.kill(server.pid, by)
    assert ask("also fine") == (Status.RIGHT, 1)


def test_one_that_crashes_costs_none_of_those_that_wait_behind_it(pool: MathPool, tmp_path: Path):
    pool.time_limit = 3.0  # memory is eaten within it on a busy machine too
    words = ["fine", "exit", "fine", "segfault", "fine", "spin", "fine", "eaten", "fine"]
    futures = [pool.submit({"word": word, "log": str(tmp_path / f"{i} {word}")}) for i, word in enumerate(words)]
    found = [future.result(timeout=60).status for future in futures]
    assert found[::2] == [Status.RIGHT] * 5
    assert found[1::2] == [Status.CRASHED, Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY]


def test_closing_ends_what_is_under_way_and_cancels_what_waits(pool: MathPool, tmp_path: Path):
    busy = pool.submit({"word": "spin", "log": str(tmp_path / "busy")})
    wait_for((tmp_path / "busy").exists)
    waiting = pool.submit({"word": "fine", "log": str(tmp_path / "waiting")})
    closer = threading.Thread(target=pool.close)
    closer.start()
    assert busy.result(timeout=20).status is Status.INFRASTRUCTURE_FAULT
    with pytest.raises(CancelledError):
        waiting.result(timeout=20)
    closer.join(20)
    assert not closer.is_alive()
    assert pool.submit({"word": "fine", "log": ""}).result(1).status is Status.INFRASTRUCTURE_FAULT


def wait_for(condition: Callable[[], bool], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
