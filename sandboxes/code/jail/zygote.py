"""The fork server of a jail: starts one job at a time in namespaces of its own, keeps its deadline, tells its end.

It reads from the host only, and never anything of a job: what a job reads and writes goes over descriptors that pass
through here unread.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import types
from typing import Any

import codec
import judge
import landlock_rules
import runner
import seccomp

CONTROL, BEGUN = 3, 4
# seconds of processor time and of wall time, bytes of memory, of /tmp and of one file, number of files, processes and
# threads, mode
REQUEST = struct.Struct("=ddQQQIIIc")
ENDED = struct.Struct("=cidQ")  # why, wait status, seconds of processor time, bytes of resident memory
KILL = b"K"
ONE = (1).to_bytes(8, sys.byteorder)

CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNS = (0x08000000, 0x04000000, 0x20000000, 0x00020000)
CLONE_PIDFD = 0x00001000
NAMESPACES = CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = (1, 22, 38, 2)
CLONE_NUMBER = {"x86_64": 56, "aarch64": 220}
CLOSE_RANGE, PIDFD_OPEN = 436, 434
CAPSET_NUMBER = {"x86_64": 126, "aarch64": 91}
CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)

libc = ctypes.CDLL(None, use_errno=True)


class Zygote:
    """The fork server. The settings are the host's: what to import, and which walls a job gets."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.namespaces = settings["namespaces"]
        self.seccomp = settings["seccomp"]
        self.landlock = settings["landlock"]
        self.machine = os.uname().machine
        if self.seccomp:
            self.filters = [prepared(seccomp.program(self.machine, processes=may)) for may in (False, True)]
        for name in settings["warm"]:
            try:
                __import__(name)
            except ImportError:
                continue
        self.stage = judge if settings["role"] == "judge" else runner
        self.cores, self.tasks = os.cpu_count() or 1, 0
        if self.landlock:
            self.tasks = tasks_of_user() + 256
            landlock_rules.restrict_to_interpreter()

    def serve(self) -> None:
        """Run jobs until the host hangs up."""
        size = REQUEST.size
        while True:
            message, ancillary, _, _ = self.control.recvmsg(size, socket.CMSG_SPACE(16))
            if not message:
                return
            fds = array.array("i")
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(data)
            if len(message) != size or len(fds) not in (3, 4):
                for fd in fds:  # the host's word to kill a job that has already ended
                    os.close(fd)
                continue
            request = REQUEST.unpack(message)
            pid, pidfd = self.clone()
            if pid == 0:
                self.become_job(request, fds)
            for fd in fds:
                os.close(fd)
            ended = self.watch(pid, pidfd, request[0], request[1])
            os.close(pidfd)
            self.control.send(ended)

    def clone(self) -> tuple[int, int]:
        """A child process, in namespaces of its own where the jail has them, and a descriptor of it."""
        if self.namespaces:
            pidfd = ctypes.c_int(-1)
            flags = NAMESPACES | CLONE_PIDFD | signal.SIGCHLD
            number = ctypes.c_long(CLONE_NUMBER[self.machine])
            pid = libc.syscall(number, ctypes.c_ulong(flags), None, ctypes.byref(pidfd), None, None)
            if pid < 0:
                raise OSError(ctypes.get_errno(), "clone: " + os.strerror(ctypes.get_errno()))
            return pid, pidfd.value
        pid = os.fork()
        return (pid, os.pidfd_open(pid)) if pid else (0, -1)

    def watch(self, pid: int, pidfd: int, cpu: float, wall: float) -> bytes:
        """Wait for the end of a job, or bring it about."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(CONTROL, select.POLLIN)
        clock = (~pid << 3) | 2
        deadline = time.monotonic() + wall
        why = b"E"
        patience = cpu / self.cores
        while True:
            left = deadline - time.monotonic()
            events = poll.poll(max(0.0, min(left, patience)) * 1000 + 1)
            if any(fd == pidfd for fd, _ in events):
                break
            if events:
                message = self.control.recv(REQUEST.size)
                why = b"K"
                if message == KILL or not message:
                    break
            if time.monotonic() >= deadline:
                why = b"W"
                break
            try:
                used = time.clock_gettime(clock)
            except OSError:
                break
            if used >= cpu:
                why = b"C"
                break
            patience = max(0.005, (cpu - used) / self.cores)
        if not self.namespaces:
            kill_group(pid)
        os.kill(pid, signal.SIGKILL)  # harmless where it has ended: it has not been waited for
        _, status, usage = os.wait4(pid, 0)
        return ENDED.pack(why, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)

    def become_job(self, request: tuple[Any, ...], fds: array.array[int]) -> None:
        """Give up everything, then run the program. Does not return."""
        try:
            self.enter(request, fds)
        except BaseException as error:
            said = f"!{type(error).__name__}: {error}".encode()
            os.write(3, struct.pack(">I", len(said)) + said)
            os._exit(70)
        try:
            os.write(BEGUN, ONE)  # from here on the host blames the program
            os.close(BEGUN)
            self.stage.main(request[8])
        except MemoryError:
            os._exit(runner.OUT_OF_MEMORY)
        finally:
            os._exit(70)

    def enter(self, request: tuple[Any, ...], fds: array.array[int]) -> None:
        """Put up the walls of one job around this process."""
        cpu, _, memory, scratch, largest, files, processes, threads, _ = request
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if len(fds) == 3:  # no input: a /dev/null of its own
            fds.insert(0, os.open("/dev/null", os.O_RDONLY))
        for place, fd in enumerate(fds):
            os.dup2(fd, place)
        if libc.syscall(ctypes.c_long(CLOSE_RANGE), ctypes.c_uint(5), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(0)):
            os.closerange(5, 4096)
        os.setsid()
        if self.namespaces:
            options = b"mode=1777,size=%d,nr_inodes=%d" % (scratch, files)
            if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options):
                raise OSError(ctypes.get_errno(), "mount /tmp: " + os.strerror(ctypes.get_errno()))
        if not self.landlock:
            os.chdir("/tmp")
        seconds = int(cpu) + 1
        for what, value in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_FSIZE, largest),
        ):
            resource.setrlimit(what, (value, value))
        if self.namespaces or self.landlock:
            tasks = self.tasks + processes + threads + 1
            resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
        if self.landlock:
            landlock_rules.restrict_to_interpreter()  # a domain of its own: it cannot signal the fork server
        if self.namespaces and libc.syscall(ctypes.c_long(CAPSET_NUMBER[self.machine]), CAPABILITY_HEADER, bytes(24)):
            raise OSError(ctypes.get_errno(), "capset: " + os.strerror(ctypes.get_errno()))
        if self.seccomp and self.namespaces:
            if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self.filters[processes > 0][0], 0, 0):
                raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))
        elif self.seccomp:
            seccomp.install(seccomp.program(self.machine, processes=False, host_pid=os.getpid()))


def prepared(program: bytes) -> tuple[bytes, Any]:
    """A struct sock_fprog of a filter, and the memory that it points to."""
    filters = ctypes.create_string_buffer(program, len(program))
    return struct.pack("HP", len(program) // 8, ctypes.addressof(filters)), filters


def kill_group(pid: int) -> None:
    """Kill what a job without namespaces has left in its session."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def tasks_of_user() -> int:
    """How many threads this user has now, outside too: without namespaces RLIMIT_NPROC counts them all."""
    count, user = 0, os.getuid()
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue
    return count


def rehearse() -> None:
    """Run what jobs run, until the interpreter has specialised its code: else each job did, on pages of its own."""
    module = types.ModuleType("rehearsal")
    source = b"from typing import List\n\ndef near(a: List[float], b: float) -> bool:\n    return abs(a[0] - b) < 1\n"
    for number in range(12):
        exec(compile(source, runner.FILE, "exec", dont_inherit=True), module.__dict__)
        call = codec.encode(("near", [[1.0, 2.0], 3], {}))
        runner.call(module, b"A", runner.NUMBER.pack(number) + call)
        runner.flush()


def limit() -> None:
    """The limits that every job has, whatever it asks for; the fork server does not need more either."""
    for name, value in (
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_STACK", 64 << 20),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_NICE", 0),
        ("RLIMIT_RTPRIO", 0),
        ("RLIMIT_SIGPENDING", 64),
    ):
        what = getattr(resource, name)
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def main() -> None:
    """Read the settings, warm up, greet the host, serve."""
    control, begun = [fcntl.fcntl(int(given), fcntl.F_DUPFD, 10) for given in sys.argv[1:3]]
    os.dup2(control, CONTROL)
    os.dup2(begun, BEGUN)
    os.closerange(BEGUN + 1, 1024)
    host = socket.socket(fileno=CONTROL)
    settings = json.loads(host.recv(1 << 16))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    limit()
    jail = Zygote(host, settings)
    sys.path[:] = [folder for folder in sys.path if os.path.isdir(folder)]  # not the archive that this was read from
    if "random" in sys.modules:
        sys.modules["random"].seed(0)
    os.environ.clear()
    os.environ.update(settings["environment"])
    sys.argv[:] = [""]
    rehearse()
    gc.collect()
    gc.freeze()  # no collection of a job walks over, and so copies, what was here before it
    host.send(json.dumps({"python": sys.version_info[:3], "modules": len(sys.modules)}).encode())
    try:
        jail.serve()
    except OSError as error:
        host.send(b"!" + str(error).encode())
        os._exit(1)
    os._exit(0)
