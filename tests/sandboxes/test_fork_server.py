"""Fork servers and their workers are real processes here; the handler is in this file."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gemsmith.sandboxes.channel import ChannelClosedError, ChildHeldError, ChildRaisedError, ChildTimeoutError
from gemsmith.sandboxes.child import ChildExitedError
from gemsmith.sandboxes.fork_server import ForkServer

HANDLER = """
import os, time

LOADED = []

def open(arguments):
    if arguments == ["refuse"]:
        raise ValueError("not today")
    LOADED.append(os.getpid())
    return answer

def answer(request):
    word, _, rest = request.partition(b" ")
    if word == b"pids":
        return f"{os.getpid()} {LOADED[0]}".encode()
    if word == b"length":
        return str(len(rest)).encode()
    if word == b"repeat":
        return rest * 1000
    if word == b"raise":
        raise KeyError("missing")
    if word == b"exit":
        os._exit(3)
    if word == b"spin":
        while True:
            pass
    if word == b"sleep":
        time.sleep(float(rest))
        return b"slept"
    if word == b"eat":
        hoard = b"x" * int(rest)
        os.kill(os.getpid(), 9)
    return b"?"
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    (tmp_path / "handler_of_fork_server.py").write_text(HANDLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    server = ForkServer("handler_of_fork_server:open")
    yield server
    server.close()


def test_workers_share_what_was_loaded_once_and_answer_on_their_own(server: ForkServer):
    first, second = server.fork(), server.fork()
    first.send(b"pids")
    second.send(b"pids")
    assert first.receive(30) == f"{first.pid} {server.pid}".encode()
    assert second.receive(30) == f"{second.pid} {server.pid}".encode()
    assert first.pid != second.pid


def test_requests_and_replies_larger_than_a_socket_pass_and_several_may_be_under_way(server: ForkServer):
    worker = server.fork()
    for _ in range(3):
        worker.send(b"repeat " + b"y" * 3000)
    worker.send(b"length " + b"x" * 3_000_000)
    assert [len(worker.receive(30)) for _ in range(3)] == [3_000_000] * 3
    assert worker.receive(30) == b"3000000"


def test_a_handler_that_raises_leaves_its_worker_well(server: ForkServer):
    worker = server.fork()
    worker.send(b"raise")
    worker.send(b"length abcd")
    with pytest.raises(ChildRaisedError, match="KeyError: 'missing'"):
        worker.receive(30)
    assert worker.receive(30) == b"4"


def test_what_was_answered_before_a_crash_is_not_lost(server: ForkServer):
    worker = server.fork()
    for request in (b"length abc", b"exit", b"length " + b"x" * 5_000_000):
        worker.send(request)
    assert worker.receive(30) == b"3"
    with pytest.raises(ChannelClosedError):
        worker.receive(30)
    assert worker.kill().code == 3


def test_a_busy_worker_is_killed_at_its_limit_and_the_next_is_there_at_once(server: ForkServer):
    worker = server.fork()
    worker.send(b"spin")
    with pytest.raises(ChildTimeoutError) as caught:
        worker.receive(0.2, patience=100)
    assert not isinstance(caught.value, ChildHeldError)
    assert worker.kill().code == -signal.SIGKILL
    assert not psutil.pid_exists(worker.pid)
    begun = psutil.Process(server.pid).cpu_times()
    again = server.fork()
    again.send(b"length ab")
    assert again.receive(30) == b"2"
    ended = psutil.Process(server.pid).cpu_times()
    assert ended.user - begun.user < 0.1  # forked, not imported again


def test_a_worker_that_sleeps_its_time_away_is_late_at_the_end_of_all_patience(server: ForkServer):
    worker = server.fork()
    worker.send(b"sleep 1000")
    start = time.monotonic()
    with pytest.raises(ChildTimeoutError) as caught:
        worker.receive(0.1, patience=4)
    assert not isinstance(caught.value, ChildHeldError)
    assert time.monotonic() - start > 0.35


def test_a_stopped_worker_is_told_from_a_slow_one(server: ForkServer):
    worker = server.fork()
    os.kill(worker.pid, signal.SIGSTOP)
    worker.send(b"length abc")
    with pytest.raises(ChildHeldError, match="stopped by a signal"):
        worker.receive(0.3, patience=100)
    assert worker.kill().code == -signal.SIGKILL


def test_how_a_worker_ended_is_known_with_the_most_memory_that_it_had(server: ForkServer):
    worker = server.fork()
    worker.send(f"eat {300 << 20}".encode())
    with pytest.raises(ChannelClosedError):
        worker.receive(30)
    end = worker.kill()
    assert end.code == -signal.SIGKILL
    assert end.peak > 300 << 20


def test_a_worker_that_ended_while_idle_is_noticed(server: ForkServer):
    worker = server.fork()
    assert worker.alive()
    os.kill(worker.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while worker.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not worker.alive()


def test_a_server_that_is_killed_takes_its_busy_workers_along(server: ForkServer):
    worker = server.fork()
    worker.send(b"spin")
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ChannelClosedError):
        worker.receive(30)
    worker.kill()
    with pytest.raises(ChildExitedError):
        server.fork()


def test_an_entry_that_fails_is_reported_and_leaves_nothing_behind(server: ForkServer):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(ChildRaisedError, match="ValueError: not today"):
        ForkServer("handler_of_fork_server:open", ["refuse"])
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_closing_ends_server_and_workers_and_gives_back_every_descriptor(server: ForkServer):
    before = psutil.Process().num_fds()
    other = ForkServer("handler_of_fork_server:open")
    workers = [other.fork() for _ in range(3)]
    workers[0].send(b"spin")
    pids = [other.pid, *(worker.pid for worker in workers)]
    other.close()
    for worker in workers:
        worker.kill()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    del other, workers, worker
    assert psutil.Process().num_fds() <= before
