"""The Landlock backend: programs among the other processes of this machine, and what they reach there."""

import os
import socket
import tempfile

import pytest

from gemsmith.sandboxes.code.backends.landlock import Landlock
from gemsmith.sandboxes.code.jail import landlock_rules
from gemsmith.sandboxes.code.jobs import CallCase, Calls, Check, Limits, Stdio, StdioCase
from gemsmith.sandboxes.code.sandbox import Pool, Sandbox
from gemsmith.sandboxes.verdict import Status

pytestmark = pytest.mark.skipif(landlock_rules.abi() < 1, reason="the kernel offers no Landlock")

LIMITS = Limits(cpu=3.0, case_cpu=1.0)


@pytest.fixture(scope="module")
def landlock():
    with Sandbox(Pool(Landlock(), 2), 2) as sandbox:
        yield sandbox


def _value(landlock, body, *arguments, limits=LIMITS):
    """Return the printed line of a function with this body, from the evidence, evaluated as an expression."""
    source = "import os, sys\ndef code(action, *arguments):\n    try:\n        action(*arguments)\n"
    source += "    except OSError as error:\n        return error.errno\n    return 0\n"
    source += "def f(*given):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    source += "print(ascii(f(*" + ascii(arguments) + ")))\n"
    verdict = landlock.run(Stdio(source, (StdioCase("", ""),), limits))
    assert verdict.evidence.exit == "0", (verdict.reason, verdict.evidence.stderr)
    return eval(verdict.evidence.stdout)


def test_every_kind_of_job_runs(landlock):
    assert landlock.backend == "landlock"
    source = "def add(a, b):\n    return a + b\n"
    assert landlock.run(Calls(source, "add", (CallCase((1, 2), 3),))).score == 1.0
    assert landlock.run(Stdio("print(input())", (StdioCase("a", "a"),))).score == 1.0
    assert landlock.run(Check(source, "assert add(1, 2) == 3", ("add",))).score == 1.0
    assert landlock.run(Check(source, "assert add(1, 2) == 4", ("add",))).status is Status.WRONG


def test_the_library_is_there(landlock):
    body = "import asyncio, bz2, decimal, sqlite3, statistics, unicodedata, zoneinfo\nreturn 1"
    assert _value(landlock, body) == 1


def test_no_file_is_read_or_written(landlock, tmp_path):
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(0o755)  # the user that programs run as gets this far
    secret = tmp_path / "secret"
    secret.write_text("text")
    secret.chmod(0o666)
    tmp_path.chmod(0o777)
    before = secret.stat()
    body = """
path, folder = given
return [
    code(open, path), code(open, path, "a"), code(os.unlink, path), code(os.truncate, path, 0),
    code(os.chmod, path, 0o600), code(os.utime, path, (0, 0)), code(os.setxattr, path, "user.x", b"x"),
    code(os.chown, path, -1, -1), code(os.link, path, path + "2"), code(os.symlink, path, folder + "/symlink"),
    code(os.mkdir, folder + "/new"), code(os.listdir, folder), code(open, "/tmp/new", "w"),
    code(open, "/etc/passwd"), code(open, "/proc/self/environ"), code(os.listdir, "/proc"), code(os.listdir, "/"),
]"""
    assert 0 not in _value(landlock, body.strip(), str(secret), str(tmp_path))
    assert os.listdir(tmp_path) == ["secret"]
    assert secret.read_text() == "text"
    after = secret.stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


def test_no_process_is_started_or_signalled(landlock):
    body = """
import ctypes, resource, signal
parent = os.getppid()
return [
    code(os.fork), code(os.kill, parent, 0), code(os.kill, -1, 0), code(os.kill, given[0], 0),
    code(os.pidfd_open, parent), code(os.execv, sys.executable, ["python"]), code(os.setpriority, 0, parent, 1),
    code(os.sched_setaffinity, parent, {0}), code(resource.prlimit, parent, resource.RLIMIT_CORE, (0, 0)),
    code(os.memfd_create, "x"),
]"""
    assert 0 not in _value(landlock, body.strip(), os.getpid())


def test_no_socket_leads_out(landlock):
    # A socket's path has 107 bytes at most, which a folder in TMPDIR may exceed.
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as folder,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket() as inet,
    ):
        os.chmod(folder, 0o755)
        path = f"{folder}/named"
        for listener, address in ((named, path), (abstract, "\0gemsmith-test"), (inet, ("127.0.0.1", 0))):
            listener.bind(address)
            listener.listen(1)
        os.chmod(path, 0o777)
        body = """
import socket
found = []
for family, address in ((socket.AF_UNIX, given[0]), (socket.AF_UNIX, "\\0gemsmith-test"), (2, ("127.0.0.1", given[1]))):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        found.append(code(lambda: socket.socket(family, kind).connect(address)))
left, right = socket.socketpair()
found += [code(left.connect, given[0]), code(left.sendto, b"x", given[0])]
found += [code(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", given[0]))]
return found"""
        assert 0 not in _value(landlock, body.strip(), path, inet.getsockname()[1])


def test_limits_hold(landlock):
    quick = Limits(cpu=0.4, case_cpu=0.4, memory=256 << 20, output=1000)
    for source, status in (
        ("while True: pass", Status.TIMEOUT),
        ("x = bytearray(1 << 29)", Status.OUT_OF_MEMORY),
        ("print('x' * 2000)", Status.CRASHED),
        ("import os; os.kill(os.getpid(), 11)", Status.CRASHED),
    ):
        assert landlock.run(Stdio(source, (StdioCase("", ""),), quick)).status is status, source


def test_threads_start_within_reason(landlock):
    source = """
import _thread, os, threading
held, started = _thread.allocate_lock(), 0
held.acquire()
threading.stack_size(32768)
try:
    while True:
        _thread.start_new_thread(held.acquire, ())
        started += 1
except RuntimeError:
    print("some" if 4 <= started < 2500 else started, flush=True)
os._exit(0)
"""
    assert landlock.run(Stdio(source, (StdioCase("", "some"),), Limits(cpu=5.0, case_cpu=5.0))).score == 1.0


def test_a_job_leaves_nothing_for_the_next(landlock):
    plant = "import json, builtins\njson.loads = builtins.len = None\nimport os\nos.environ['X'] = '1'\nprint(1)"
    assert landlock.run(Stdio(plant, (StdioCase("", "1"),))).score == 1.0
    body = (
        "import json\nreturn [json.loads('1'), len('ab'), os.environ.get('X'), [n for n in os.environ if 'KEY' in n]]"
    )
    assert _value(landlock, body) == [1, 2, None, []]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start jails as another user")
def test_root_hands_programs_to_spare_users(landlock):
    uids = _value(landlock, "return [os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.getresuid()]")
    assert uids[0] == uids[1] > 60000 and uids[2] > 60000 and not uids[3] and set(uids[4]) == {uids[0]}


def test_processes_are_refused(landlock):
    verdict = landlock.run(Stdio("print(1)", (StdioCase("", "1"),), Limits(processes=2)))
    assert verdict.score == 0.0 and "process" in verdict.reason
