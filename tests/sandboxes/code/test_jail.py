import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemsmith.sandboxes.code.backends.jail import JailError, Keeper
from gemsmith.sandboxes.code.codec import decode, encode
from gemsmith.sandboxes.code.job_session import Trial, TrialEnd, Why
from gemsmith.sandboxes.code.jobs import CallCase, Calls, Limits
from gemsmith.sandboxes.code.judging import NUMBER
from gemsmith.sandboxes.code.sandbox import Pool
from gemsmith.sandboxes.code.selection import _judging, probe
from gemsmith.sandboxes.verdict import Status

SQUARE = "def solve(n):\n    return n * n\n"
JOB = Calls(SQUARE, "solve", (CallCase((3,), 9),))
LOOK = """
import os, resource
def solve(what):
    if what == "pid":
        return [os.getpid(), os.getppid(), os.getsid(0)]
    if what == "fds":
        return sorted(int(fd) for fd in range(64) if opened(fd))
    if what == "limits":
        names = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE")
        return [list(resource.getrlimit(getattr(resource, name))) for name in names]
    if what == "root":
        return sorted(os.listdir("/"))
    if what == "scratch":
        room = os.statvfs("/tmp")
        return [room.f_bsize * room.f_blocks, room.f_files]
def opened(fd):
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False
"""


@pytest.fixture(params=["bubblewrap", "unshare"])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    found = probe(request.param)
    if not found.works:
        pytest.skip(f"{request.param}: {found.reason}")
    opened = _judging(request.param, 1, None)
    assert isinstance(opened, Pool)
    yield opened
    opened.close()


def asked(pool: Pool, what: str, limits: Limits | None = None) -> object:
    """Return what a job sees of its surroundings."""
    jail = pool.take("candidate")
    try:
        trial = Trial(jail, limits or Limits(), b"F")
        trial.send((b"S", LOOK.encode()), (b"A", NUMBER.pack(0) + encode(("solve", [what], {}))))
        kind, body = trial.receive(100_000, 5.0)
        assert trial.finish(0.0).why == "K"
        assert kind == b"V", body
        return decode(body[4:])
    finally:
        pool.give_back("candidate", jail, lost=False)


def test_a_job_is_alone(pool: Pool) -> None:
    assert asked(pool, "pid") == [1, 0, 1]  # first of its process namespace, without a parent in it
    assert asked(pool, "fds") == [0, 1, 2, 3]
    root = asked(pool, "root")
    assert isinstance(root, list) and set(root) <= {"bin", "dev", "lib", "lib32", "lib64", "opt", "sbx", "tmp", "usr"}


def test_a_job_has_its_limits(pool: Pool) -> None:
    limits = Limits(memory=300 << 20, scratch=4 << 20, files=77, output=1 << 20)
    assert asked(pool, "limits", limits) == [[300 << 20] * 2, [0, 0], [64, 64], [4 << 20] * 2]
    assert asked(pool, "scratch", limits) == [4 << 20, 77]


def test_judges_and_candidates_are_in_other_jails_as_other_users(pool: Pool) -> None:
    candidate, judge = pool.take("candidate"), pool.take("judge")
    users = [os.stat(f"/proc/{jail.pid}").st_uid for jail in (candidate, judge)]
    pool.give_back("candidate", candidate, lost=False)
    pool.give_back("judge", judge, lost=False)
    assert candidate.pid != judge.pid
    if os.geteuid() == 0:
        assert users == [65533, 65532]
    else:
        assert users == [os.geteuid()] * 2


def test_a_jail_that_dies_between_jobs_is_replaced(pool: Pool) -> None:
    assert pool.run(JOB).score == 1.0
    jail = pool.take("candidate")
    pool.give_back("candidate", jail, lost=False)
    os.kill(jail.pid, signal.SIGKILL)
    assert pool.run(JOB).score == 1.0


def test_a_jail_that_dies_under_a_job_is_not_the_jobs_fault_once_and_is_its_fault_twice(pool: Pool) -> None:
    slow = Calls("import time\n" + SQUARE + "time.sleep(1.5)\n", "solve", JOB.cases)
    for deaths, expected in ((1, Status.RIGHT), (2, Status.CRASHED)):
        verdicts = []
        thread = threading.Thread(target=lambda: verdicts.append(pool.run(slow)))  # noqa: B023
        thread.start()
        killed: set[int] = set()
        deadline = time.monotonic() + 20
        while len(killed) < deaths and time.monotonic() < deadline:
            for jail in list(pool._jails):
                if jail.had_control and jail.pid not in killed and jail.alive:
                    killed.add(jail.pid)
                    os.kill(jail.pid, signal.SIGKILL)
            time.sleep(0.005)
        thread.join(20)
        assert [verdict.status for verdict in verdicts] == [expected]
        for jail in list(pool._jails):
            jail.forget_job()


def test_a_stopped_fork_server_is_a_timeout_of_the_job_and_the_jail_is_replaced(pool: Pool) -> None:
    limits = Limits(cpu=0.3, case_cpu=5, wall_factor=1.0)
    jail = pool.take("candidate")
    trial = Trial(jail, limits, b"F")
    while not jail.had_control and jail.alive:
        time.sleep(0.001)
    os.kill(jail.pid, signal.SIGSTOP)
    trial.send((b"S", b"import time\ntime.sleep(60)\n"))
    begun = time.monotonic()
    with pytest.raises(TrialEnd) as caught:
        trial.receive(100, 60.0)
    assert caught.value.why is Why.TIMEOUT
    trial.finish(0.0)
    assert time.monotonic() - begun < limits.wall + 1.0 + 2.0
    assert not jail.alive
    pool.give_back("candidate", jail, lost=True)
    assert pool.run(JOB).score == 1.0


def test_nothing_survives_the_end_of_a_pool(pool: Pool) -> None:
    assert pool.run(JOB).score == 1.0
    pids = [process for jail in pool._jails for process in (jail.pid, jail.process.pid)]
    pool.close()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_jail_that_does_not_start_says_why(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    monkeypatch.setattr("gemsmith.sandboxes.code.backends.settings.WARM", "\0")
    monkeypatch.setattr("gemsmith.sandboxes.code.backends.settings._PARTS", ("jail/runner.py",))
    with pytest.raises(JailError, match="zygote"):
        pool._backend.start("candidate", keeper)
    keeper.close()
