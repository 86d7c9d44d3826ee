import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.policy.samplers.engine_process import EngineProcess

STAND_IN = "stand_in"  # beside this file
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


@pytest.fixture
def said():
    return []


@pytest.fixture
def process(said):
    process = EngineProcess("stand-in", STAND_IN, ENVIRONMENT, room=0, say=said.append)
    yield process
    process.close()


def gone(pid, seconds=10.0):
    """Return True if the process ends within that many seconds."""
    end = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_requests_are_answered_and_a_failed_one_leaves_the_process_up(process):
    assert process.ask(21, 30, "double") == 42
    with pytest.raises(RunError, match="stand-in could not double: ValueError: no number: x"):
        process.ask("x", 30, "double")
    assert process.ask(4, 30, "double") == 8


def test_a_request_that_takes_too_long_ends_the_process_and_shows_its_last_lines(process):
    process.ask(1, 30, "double")
    with pytest.raises(UserError, match=r"Waited 1 s for the stand-in to sleep(.|\n)*going to sleep"):
        process.ask("sleep", 1, "sleep")
    assert gone(process.pid) and not process.folder.exists()
    with pytest.raises(RunError, match="cannot double: it took longer than 1 s to sleep"):
        process.ask(1, 30, "double")


def test_a_process_that_has_stopped_is_given_up_in_time_too(process):
    """Its end of the connection fills up, and sending waits as long as receiving would."""
    process.ask(1, 30, "double")
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(UserError, match="Waited 1 s"):
        process.ask("x" * 10_000_000, 1, "double")
    assert gone(process.pid)


@pytest.mark.parametrize(
    ("request_", "words"),
    [("leave", "Waited 1 s for the stand-in to leave"), ("orphan", "exit code 3 .*orphan")],
)
def test_what_else_holds_its_connection_does_not_make_the_wait_longer(process, request_, words):
    process.ask(1, 30, "double")
    begun = time.monotonic()
    with pytest.raises((UserError, RunError), match=words):
        process.ask(request_, 1, request_)
    assert time.monotonic() - begun < 10  # the fork that holds it sleeps for 20


def test_a_wait_is_said_while_it_lasts_and_no_longer(process, said, monkeypatch):
    process.ask(1, 30, "double")
    monkeypatch.setattr("gemsmith.contracts.waits.FIRST_WORD", 0.2)
    with pytest.raises(UserError, match="Waited 1 s for the stand-in to sleep"):
        process.ask("sleep", 1, "sleep")
    expected = [f"waiting for the stand-in to sleep: {after} s of at most 1 s" for after in (0.2, 0.4, 0.8)]
    assert said and said == expected[: len(said)]
    assert not any("stand-in" in thread.name for thread in threading.enumerate())


def test_a_process_that_dies_is_named_with_its_last_lines(process):
    process.ask(1, 30, "double")
    threading.Timer(0.5, os.kill, (process.pid, signal.SIGKILL)).start()
    with pytest.raises(RunError, match=r"SIGKILL .*sleep(.|\n)*going to sleep"):
        process.ask("sleep", 30, "sleep")
    assert not process.folder.exists()


def test_closing_ends_it_and_removes_its_folder(process):
    process.ask(1, 30, "double")
    process.close()
    process.close()
    assert gone(process.pid) and not process.folder.exists()
    with pytest.raises(RunError, match="it was closed"):
        process.ask(1, 30, "double")


def test_a_process_goes_when_its_parent_is_killed_while_it_works():
    script = (
        "import os, threading\n"
        "from gemsmith.policy.samplers.engine_process import EngineProcess\n"
        f"process = EngineProcess('stand-in', {STAND_IN!r}, os.environ, room=0)\n"
        "process.ask(1, 30, 'double')\n"
        "print(process.pid, process.folder, flush=True)\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), 9)).start()\n"
        "process.ask('sleep', 60, 'sleep')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    pid, folder = run.stdout.split()
    assert run.returncode == -signal.SIGKILL
    assert gone(int(pid)) and not Path(folder).exists()


def test_a_process_that_cannot_be_started_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError):
        EngineProcess("stand-in", STAND_IN, ENVIRONMENT, room=10**18)
    assert list(tmp_path.iterdir()) == []


def test_its_temporary_files_go_with_it(process):
    """vLLM leaves `vllm_dist_*` and sockets where it is killed."""
    process.ask(1, 30, "double")
    variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert f"TMPDIR={process.folder}/tmp".encode() in variables
    (process.folder / "tmp" / "vllm_dist_0").touch()
    process.close()
    assert not process.folder.exists()
