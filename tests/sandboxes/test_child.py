"""Children are real processes here; their handlers are in this file."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gemsmith.sandboxes.child import Child, ChildExitedError, ChildRaisedError, ChildTimeoutError

HANDLERS = """
import os, signal, subprocess, sys, time

def open(arguments):
    if arguments == ["refuse"]:
        raise ValueError("not today")
    return answer

def answer(request):
    word, _, rest = request.partition(b" ")
    if word == b"pid":
        return str(os.getpid()).encode()
    if word == b"length":
        return str(len(rest)).encode() * 1
    if word == b"repeat":
        return rest * 1000
    if word == b"print":
        print("noise on standard output", flush=True)
        os.write(1, b"more noise")
        return b"quiet"
    if word == b"raise":
        raise KeyError("missing")
    if word == b"sleep":
        time.sleep(float(rest))
        return b"slept"
    if word == b"exit":
        os._exit(3)
    if word == b"segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"power":
        return str(len(str(bin(9 ** 9 ** 9 ** 9)))).encode()
    if word == b"grandchild":
        return str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid).encode()
    return b"?"
"""


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "handlers_of_test_child.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "handlers_of_test_child:open"


def gone(pid: int, within: float = 10.0) -> bool:
    """Return True if a process ends; an unreaped zombie has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_requests_and_replies_larger_than_a_pipe_pass(entry: str):
    child = Child(entry)
    assert child.call(b"length " + b"x" * 3_000_000, 30) == b"3000000"
    assert child.call(b"repeat " + b"y" * 3000, 30) == b"y" * 3_000_000
    child.kill()


def test_what_the_handler_prints_is_not_taken_for_its_reply(entry: str):
    child = Child(entry, quiet=True)
    assert child.call(b"print", 30) == b"quiet"
    assert child.call(b"length abc", 30) == b"3"
    child.kill()


def test_a_child_that_holds_the_interpreter_is_killed_at_the_limit(entry: str):
    child = Child(entry)
    start = time.monotonic()
    with pytest.raises(ChildTimeoutError):
        child.call(b"power", 0.3)
    child.kill()
    assert time.monotonic() - start < 5
    assert gone(child.pid)


def test_with_patience_only_the_childs_own_computing_counts_but_wall_time_ends(entry: str):
    child = Child(entry)
    start = time.monotonic()
    with pytest.raises(ChildTimeoutError):
        child.call(b"sleep 1000", 0.2, patience=4)
    assert time.monotonic() - start >= 0.8
    child.kill()
    child = Child(entry)
    assert child.call(b"sleep 0.6", 0.2, patience=1000) == b"slept"
    with pytest.raises(ChildTimeoutError):
        child.call(b"power", 0.2, patience=1000)
    child.kill()


def test_a_request_that_the_child_never_reads_stops_at_the_limit(entry: str):
    child = Child(entry)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(ChildTimeoutError):
        child.call(b"length " + b"x" * 3_000_000, 0.3)
    child.kill()


def test_a_child_started_by_a_thread_outlives_the_thread(entry: str):
    children: list[Child] = []
    in_thread(lambda: children.append(Child(entry)))
    assert children[0].call(b"length ab", 30) == b"2"
    children[0].kill()


@pytest.mark.parametrize(("request_", "code", "words"), [(b"exit", 3, "code 3"), (b"segfault", -11, "SIGSEGV")])
def test_a_child_that_ends_says_how(entry: str, request_: bytes, code: int, words: str):
    child = Child(entry)
    with pytest.raises(ChildExitedError, match=words) as caught:
        child.call(request_, 30)
    assert caught.value.code == code
    child.kill()


def test_a_handler_that_raises_leaves_its_child_well(entry: str):
    child = Child(entry)
    with pytest.raises(ChildRaisedError, match="KeyError: 'missing'"):
        child.call(b"raise", 30)
    assert child.call(b"length abcd", 30) == b"4"
    child.kill()


def test_an_entry_that_fails_is_reported_and_leaves_nothing_behind(entry: str):
    with pytest.raises(ChildRaisedError, match="ValueError: not today"):
        Child(entry, ["refuse"])
    with pytest.raises(ChildRaisedError, match="no_such_module"):
        Child("no_such_module:open")


def test_killing_a_child_takes_what_it_started_along(entry: str):
    child = Child(entry)
    grandchild = int(child.call(b"grandchild", 30))
    assert not gone(grandchild, within=0)
    child.kill()
    assert gone(grandchild)


def test_a_child_that_ends_takes_what_it_started_along(entry: str):
    child = Child(entry)
    grandchild = int(child.call(b"grandchild", 30))
    with pytest.raises(ChildExitedError):
        child.call(b"exit", 30)
    assert gone(grandchild)


def test_a_busy_child_dies_with_a_parent_that_is_killed(entry: str, tmp_path: Path):
    program = textwrap.dedent(f"""
        import sys, threading
        sys.path[:0] = {[str(tmp_path)]!r}
        from gemsmith.sandboxes.child import Child
        child = Child({entry!r})
        print(child.pid, flush=True)
        child.call(b"power", 1000)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)
