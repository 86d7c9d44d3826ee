"""The filter is put on a real process, which then makes the calls; the numbers are those of x86-64."""

import errno
import json
import platform
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gemsmith.sandboxes.code.jail import seccomp

FILE = Path(seccomp.__file__)
INTERPRETERS = [sys.executable, *sorted(str(path) for path in Path("/usr/bin").glob("python3.[0-9]*[0-9]"))]
MINUS_ONE = (1 << 64) - 1  # as an address, a length, an id and a set of flags: refused by every call that gets through

needs_x86_64 = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="makes x86-64 Linux system calls"
)

PREAMBLE = """
import ctypes, errno, json, os, resource, signal, socket, sys, threading
sys.path.insert(0, sys.argv[1])
import seccomp
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    padded = list(arguments) + [0] * (6 - len(arguments))
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(value) for value in padded])
    return ctypes.get_errno() if result == -1 else -result

def code_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
processes, on_host, filtered = json.loads(sys.argv[2])
if filtered:
    host_pid = os.getpid() if on_host else None
    seccomp.install(seccomp.program("x86_64", processes=processes, host_pid=host_pid))
"""


def _confined(body, *, processes=False, on_host=False, filtered=True, interpreter=sys.executable):
    """The completed process of a program that runs under the filter, with the file alone on its path."""
    flags = json.dumps([processes, on_host, filtered])
    command = [interpreter, "-I", "-S", "-c", PREAMBLE + body, str(FILE.parent), flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True, check=False)


def _answer(body, **how):
    done = _confined(body, **how)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _evaluate(code, architecture, number, arguments=()):
    """Return what the kernel would do with a call, by the same machine in Python, for filters that cannot run here."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *[*arguments, *[0] * (6 - len(arguments))])
    operations = list(struct.iter_unpack("HBBI", code))
    place, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = operations[place]
        place += 1
        if operation == seccomp.RETURN:
            return value
        if operation == seccomp.LOAD:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == seccomp.AND:
            accumulator &= value
        else:
            true = {
                seccomp.IF_EQUAL: accumulator == value,
                seccomp.IF_GREATER: accumulator > value,
                seccomp.IF_AT_LEAST: accumulator >= value,
                seccomp.IF_ANY_BIT: accumulator & value != 0,
            }[operation]
            place += if_true if true else if_false


@needs_x86_64
@pytest.mark.parametrize("on_host", [False, True])
def test_every_call_of_the_table_is_denied(on_host):
    rows = seccomp.DENIED + seccomp.FORKS + (seccomp.DENIED_ON_HOST if on_host else ())
    calls = [(name, number, answer) for name, number, _, answer in rows]
    body = f"print(json.dumps({{name: call(number, *[{MINUS_ONE}] * 6) for name, number, _ in {calls!r}}}))"
    assert _answer(body, on_host=on_host) == {name: answer for name, _, answer in calls}


@needs_x86_64
def test_calls_that_the_kernel_grants_without_the_filter_are_refused_with_it():
    body = """
print(json.dumps([
    code_of(socket.socket, socket.AF_INET, socket.SOCK_STREAM),
    code_of(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
    code_of(os.memfd_create, "memory"),
    call(135, 0xFFFFFFFF) if filtered else 0,
    call(101, 0, 0, 0, 0),
    code_of(os.nice, 0),
    call(29, 0, 4096, 0o1600),
    code_of(os.execv, "/nothing", ["nothing"]),
]))
"""
    free = _answer(body, filtered=False)
    assert free[:3] == [0, 0, 0] and free[4:6] == [0, 0] and free[6] <= 0 and free[7] == errno.ENOENT
    assert _answer(body) == [errno.EPERM] * 8


@needs_x86_64
@pytest.mark.parametrize("number", [0, 59, 502], ids=["read", "execve", "beyond the table"])
def test_the_x32_table_kills(number):
    assert _confined(f"call({seccomp.X32_BIT | number})").returncode == -signal.SIGSYS


@needs_x86_64
def test_the_32_bit_entry_kills():
    body = """
import mmap
code = b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3"  # mov eax, 20 (getpid of i386); int 0x80; ret
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print(1)
"""
    assert _confined(body).returncode == -signal.SIGSYS
    assert _answer(body, filtered=False) == 1


@needs_x86_64
def test_calls_newer_than_the_table_do_not_exist():
    assert _answer("print(json.dumps([call(470), call(5000)]))") == [errno.ENOSYS, errno.ENOSYS]


@needs_x86_64
def test_threads_start_and_processes_do_not():
    body = """
ran = []
thread = threading.Thread(target=ran.append, args=(1,))
thread.start()
thread.join()
print(json.dumps([ran, code_of(os.fork), call(56, 17), call(56, 17 | 0x10000000), call(56, 17 | 0x8000)]))
"""
    assert _answer(body) == [[1], errno.EAGAIN, errno.EAGAIN, errno.EPERM, errno.EPERM]


@needs_x86_64
def test_processes_are_allowed_on_request_but_namespaces_and_programs_are_not():
    body = """
child = os.fork()
if not child:
    os._exit(7)
status = os.waitpid(child, 0)[1]
print(json.dumps([status >> 8, call(56, 17 | 0x10000000), code_of(os.execv, sys.executable, ["python"])]))
"""
    assert _answer(body, processes=True) == [7, errno.EPERM, errno.EPERM]


@needs_x86_64
def test_a_terminal_cannot_be_typed_into():
    body = """
leader, follower = os.openpty()
letter = ctypes.create_string_buffer(b"x")
address = ctypes.addressof(letter)
print(json.dumps([call(16, follower, 0x5412, address), call(16, follower, 0x541C, address),
                  call(16, follower, 1 << 32 | 0x5412, address), os.isatty(follower)]))
"""
    # The pair is opened before the filter goes on: opening one is itself an ioctl that is not allowed.
    opening = body.split("letter")[0]
    late = PREAMBLE.replace("if filtered:", opening + "if filtered:") + body.replace(opening, "\n")
    command = [sys.executable, "-I", "-S", "-c", late, str(FILE.parent), "[false, false, true]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True, check=True)
    assert json.loads(done.stdout) == [errno.EPERM, errno.EPERM, errno.EPERM, True]


@needs_x86_64
def test_a_job_stays_bound_to_its_parent_and_to_its_own_limits():
    body = """
import fcntl
read, write = os.pipe()
print(json.dumps([
    call(157, 1, 0), call(157, 22, 2, 0), call(302, os.getppid(), 7, 0, 0), call(302, 0, 7, 0, 0),
    code_of(fcntl.fcntl, read, 8, 1), code_of(fcntl.fcntl, read, 10, 9), code_of(fcntl.fcntl, read, fcntl.F_GETFL),
]))
"""
    assert _answer(body) == [errno.EPERM, errno.EPERM, errno.EPERM, 0, errno.EPERM, errno.EPERM, 0]


@needs_x86_64
def test_without_namespaces_a_job_signals_only_itself():
    body = """
me, parent = os.getpid(), os.getppid()
signal.signal(signal.SIGUSR1, lambda *_: None)
print(json.dumps([
    code_of(os.kill, parent, 0), code_of(os.kill, -1, 0), code_of(os.kill, 0, 0), call(234, parent, parent, 0),
    call(129, parent, 10, 0), code_of(os.kill, me, signal.SIGUSR1), call(234, me, me, 0),
]))
"""
    assert _answer(body, on_host=True) == [errno.EPERM] * 5 + [0, 0]
    assert _answer("print(json.dumps(code_of(os.kill, os.getppid(), 0)))") == 0
    assert _confined("os.abort()", on_host=True).returncode == -signal.SIGABRT


@needs_x86_64
@pytest.mark.parametrize("on_host", [False, True])
def test_the_only_sockets_are_a_connected_pair(on_host):
    body = """
left, right = socket.socketpair()
left.send(b"x")
print(json.dumps([
    right.recv(1).decode(), code_of(socket.socket, socket.AF_UNIX), code_of(left.bind, "\\0name"),
    code_of(left.connect, "\\0name"), code_of(left.sendto, b"x", "\\0name"),
    code_of(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM),
    code_of(socket.socketpair, socket.AF_UNIX, socket.SOCK_SEQPACKET), code_of(left.listen, 4096),
    code_of(left.setsockopt, 1, 7, 1 << 20), code_of(left.getsockopt, 1, 77), code_of(left.getsockopt, 1, 4),
    *[code_of(socket.socket, family) for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, 17, 38, 40)],
    call(53, 1 << 32 | 2, 1, 0, 0),
]))
"""
    letter, *rest = _answer(body, on_host=on_host)
    assert letter == "x"
    assert rest == [errno.EPERM] * 3 + [errno.EISCONN] + [errno.EPERM] * 5 + [0] + [errno.EPERM] * 7


@needs_x86_64
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_ordinary_programs_run_under_the_filter(interpreter, tmp_path):
    body = f"""
import asyncio, collections, dataclasses, decimal, fractions, heapq, io, math, os, random, re, statistics, tempfile
import time

async def nothing():
    await asyncio.sleep(0)
    return 1

with tempfile.TemporaryFile(dir={str(tmp_path)!r}) as file:
    file.write(b"text")
    file.seek(0)
    text = file.read().decode()
time.sleep(0.001)
print(json.dumps([asyncio.run(nothing()), text, os.listdir({str(tmp_path)!r}), random.Random(0).randrange(1, 2)]))
"""
    assert _answer(body, interpreter=interpreter) == [1, "text", [], 1]


@pytest.mark.parametrize("machine", list(seccomp.MACHINES))
@pytest.mark.parametrize("host_pid", [None, 1234])
def test_the_evaluated_filter_answers_as_its_tables_say(machine, host_pid):
    architecture, column = seccomp.MACHINES[machine]
    code = seccomp.program(machine, processes=False, host_pid=host_pid)
    rows = seccomp.DENIED + seccomp.FORKS + (() if host_pid is None else seccomp.DENIED_ON_HOST)
    for name, *numbers, answer in rows:
        if numbers[column] != seccomp.ABSENT:
            assert _evaluate(code, architecture, numbers[column]) == seccomp.ERRNO | answer, name
    for name, *numbers, conditions in seccomp.RESTRICTED:
        values = [0] * 6
        for argument, _, allowed in conditions:
            values[argument] = allowed[-1]
        assert _evaluate(code, architecture, numbers[column], values) == seccomp.ALLOW, name
        values[conditions[0][0]] = 0x5412
        assert _evaluate(code, architecture, numbers[column], values) == seccomp.ERRNO | errno.EPERM, name
    clone = seccomp.CLONE[column]
    assert _evaluate(code, architecture, clone, [0x3D0F00]) == seccomp.ALLOW  # what pthread_create asks for
    assert _evaluate(code, architecture, clone, [17]) == seccomp.ERRNO | errno.EAGAIN
    assert _evaluate(code, architecture, clone, [0x10000 | 0x40000000]) == seccomp.ERRNO | errno.EPERM
    assert _evaluate(code, architecture ^ 1, 0) == seccomp.KILL
    assert _evaluate(code, architecture, seccomp.LAST_NUMBER + 1) == seccomp.ERRNO | errno.ENOSYS
    kill = seccomp.SIGNALS[0][1 + column]
    assert (_evaluate(code, architecture, kill, [1234]) == seccomp.ALLOW) is True
    assert (_evaluate(code, architecture, kill, [1]) == seccomp.ALLOW) is (host_pid is None)


def test_a_number_is_denied_once_and_a_name_has_one_number():
    for column in range(2):
        everything = [
            (row[0], row[1 + column])
            for table in (seccomp.DENIED, seccomp.FORKS, seccomp.DENIED_ON_HOST, seccomp.RESTRICTED, seccomp.SIGNALS)
            for row in table
            if row[1 + column] != seccomp.ABSENT
        ]
        assert len({name for name, _ in everything}) == len({number for _, number in everything}) == len(everything)


def test_what_the_design_names_is_denied():
    named = """execve execveat clone3 ptrace process_vm_readv process_vm_writev memfd_create memfd_secret userfaultfd
        keyctl add_key request_key shmget msgget semget personality modify_ldt io_uring_setup bpf perf_event_open
        open_by_handle_at name_to_handle_at mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount
        fspick mount_setattr unshare setns capset kexec_load init_module finit_module syslog reboot swapon acct quotactl
        kcmp pidfd_getfd process_madvise socket inotify_init inotify_init1 landlock_create_ruleset"""
    assert set(named.split()) <= {row[0] for row in seccomp.DENIED}


def test_another_machine_is_refused_by_name():
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.program("riscv64", processes=False)
