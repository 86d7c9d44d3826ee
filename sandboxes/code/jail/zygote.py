"""The fork server of a jail: it starts one job at a time, enforces the job's time limits, and reports the job's end.

It reads messages from the host only. A job's input and output go over descriptors that the host passes through this
process, which never reads them, so a job cannot attack it with data.

Order of messages on the control socket (SOCK_SEQPACKET: each message is one packet):

1. host -> fork server: the settings, as JSON.
2. fork server -> host: a greeting in JSON once it is warm, or "!" and the reason why it cannot start.
3. host -> fork server: a `REQUEST` with three or four descriptors: standard input (optional), standard output, standard
   error, and the job's channel.
4. host -> fork server, optional: "K", which kills the job. It may arrive after the job's end, and is then ignored.
5. fork server -> host: `ENDED`. Then the next job may follow, from step 3.

A job increments the event counter `BEGUN` directly before it runs the program. That tells the host whether the program
can be the cause of a failure. If the limits cannot be set up, the job writes the reason to its channel instead, as a
frame of kind "!", and exits with code 70.
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

# Descriptors of the fork server. In a job, 0 to 2 are the standard streams, 3 is the channel to the host, and 4 is
# still the counter of jobs that have begun.
CONTROL, BEGUN = 3, 4
# Fields of a request: seconds of processor time, seconds of wall time; bytes of memory, of /tmp and of one file; number
# of files, of processes and of threads; mode ("S" script, "F" functions, "J" judge).
REQUEST = struct.Struct("=ddQQQIIIc")
# Fields of a report: cause ("E" ended by itself, "K" killed for the host, "C" processor time, "W" wall time), wait
# status, seconds of processor time, bytes of resident memory.
ENDED = struct.Struct("=cidQ")
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
    """The fork server.

    Args:
        control: socket to the host.
        settings: from the host: the role (candidate or judge), the modules to import, and which of namespaces, seccomp
            and Landlock confine the jobs.
    """

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.namespaces = settings["namespaces"]
        self.seccomp = settings["seccomp"]
        self.landlock = settings["landlock"]
        self.machine = os.uname().machine
        # Both filters are built once, before any fork: a job only has to install one of them. Index 1 allows fork.
        if self.seccomp:
            self.filters = [prepared(seccomp.program(self.machine, processes=may)) for may in (False, True)]
        for name in settings["warm"]:
            try:
                __import__(name)
            except ImportError:
                continue
        self.stage = judge if settings["role"] == "judge" else runner
        self.cores, self.tasks = os.cpu_count() or 1, 0
        # Without a user namespace, RLIMIT_NPROC counts all threads of this user on the machine. So a job's limit is
        # added to those that run now, with room for 256 more that other programs may start meanwhile.
        if self.landlock:
            self.tasks = tasks_of_user() + 256
            landlock_rules.restrict_to_interpreter()

    def serve(self) -> None:
        """Run jobs, one after another, until the host closes the control socket."""
        size = REQUEST.size
        while True:
            message, ancillary, _, _ = self.control.recvmsg(size, socket.CMSG_SPACE(16))
            if not message:
                return
            fds = array.array("i")
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(data)
            # Not a request, so it is a "K" that arrived after its job had ended.
            if len(message) != size or len(fds) not in (3, 4):
                for fd in fds:
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
        """Fork, into new namespaces if the jail has them.

        Returns:
            The child's process id and a pidfd; in the child, 0 and -1.
        """
        if self.namespaces:
            pidfd = ctypes.c_int(-1)
            # clone(2) creates the namespaces, the process and its pidfd in one call. A new PID namespace makes the job
            # its first process: when it dies, the kernel kills every process that it started.
            flags = NAMESPACES | CLONE_PIDFD | signal.SIGCHLD
            number = ctypes.c_long(CLONE_NUMBER[self.machine])
            pid = libc.syscall(number, ctypes.c_ulong(flags), None, ctypes.byref(pidfd), None, None)
            if pid < 0:
                raise OSError(ctypes.get_errno(), "clone: " + os.strerror(ctypes.get_errno()))
            return pid, pidfd.value
        pid = os.fork()
        return (pid, os.pidfd_open(pid)) if pid else (0, -1)

    def watch(self, pid: int, pidfd: int, cpu: float, wall: float) -> bytes:
        """Wait for a job to end, or kill it at a limit or at the host's request.

        Args:
            pid: process id of the job, not yet waited for.
            pidfd: a descriptor that becomes readable when the job ends.
            cpu: seconds of processor time that the job may use.
            wall: seconds of wall time that the job may take.

        Returns:
            A packed `ENDED`.
        """
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(CONTROL, select.POLLIN)
        clock = (~pid << 3) | 2  # the kernel's id of a process's CPU clock, see clock_getcpuclockid(3)
        deadline = time.monotonic() + wall
        why = b"E"
        # `patience` is the least wall time in which the job can reach its limit of processor time: with a thread on
        # each core. So nothing has to be measured before it has passed.
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
            # The clock disappears when the job ends; its cause is then "E".
            try:
                used = time.clock_gettime(clock)
            except OSError:
                break
            if used >= cpu:
                why = b"C"
                break
            patience = max(0.005, (cpu - used) / self.cores)  # 5 ms keep this loop from using a core near the limit
        if not self.namespaces:
            kill_group(pid)
        # The job has not been waited for, so its process id is still its own, and killing a zombie has no effect.
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        return ENDED.pack(why, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)

    def become_job(self, request: tuple[Any, ...], fds: array.array[int]) -> None:
        """Set up the job's limits in this process, then run the program. Does not return."""
        try:
            self.enter(request, fds)
        except BaseException as error:
            said = f"!{type(error).__name__}: {error}".encode()
            os.write(3, struct.pack(">I", len(said)) + said)
            os._exit(70)
        # From here on the host attributes every failure to the program. Close the counter, so that the program cannot
        # claim that the next job has begun.
        try:
            os.write(BEGUN, ONE)
            os.close(BEGUN)
            self.stage.main(request[8])
        except MemoryError:
            os._exit(runner.OUT_OF_MEMORY)
        finally:
            os._exit(70)

    def enter(self, request: tuple[Any, ...], fds: array.array[int]) -> None:
        """Confine this process to the limits of one job.

        The order matters: each step needs rights or system calls that a later step takes away. Mounting /tmp needs
        CAP_SYS_ADMIN, capset drops it, and the seccomp filter, which is last, denies mount, capset and more.
        """
        cpu, _, memory, scratch, largest, files, processes, threads, _ = request
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if len(fds) == 3:  # the job has no input: give it /dev/null
            fds.insert(0, os.open("/dev/null", os.O_RDONLY))
        # Descriptor 3, the control socket, is replaced by the job's channel here; close_range(5, ...) closes the rest,
        # so that no job holds a descriptor of the fork server or of another job.
        for place, fd in enumerate(fds):
            os.dup2(fd, place)
        if libc.syscall(ctypes.c_long(CLOSE_RANGE), ctypes.c_uint(5), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(0)):
            os.closerange(5, 4096)
        os.setsid()
        # A new tmpfs for each job: nothing of one job's files is left for the next, and the kernel limits their size
        # and number.
        if self.namespaces:
            options = b"mode=1777,size=%d,nr_inodes=%d" % (scratch, files)
            if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options):
                raise OSError(ctypes.get_errno(), "mount /tmp: " + os.strerror(ctypes.get_errno()))
        if not self.landlock:
            os.chdir("/tmp")
        # RLIMIT_CPU is whole seconds and counts each process by itself: it is a backstop, above the limit that `watch`
        # enforces. RLIMIT_AS limits each process too, which is why a job may start no processes by default.
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
        # A second Landlock domain, inside the fork server's: its scope keeps the job from signalling the fork server.
        if self.landlock:
            landlock_rules.restrict_to_interpreter()
        if self.namespaces and libc.syscall(ctypes.c_long(CAPSET_NUMBER[self.machine]), CAPABILITY_HEADER, bytes(24)):
            raise OSError(ctypes.get_errno(), "capset: " + os.strerror(ctypes.get_errno()))
        if self.seccomp and self.namespaces:
            if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self.filters[processes > 0][0], 0, 0):
                raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))
        # Without namespaces the filter contains the job's own process id, so it cannot be built before the fork.
        elif self.seccomp:
            seccomp.install(seccomp.program(self.machine, processes=False, host_pid=os.getpid()))


def prepared(program: bytes) -> tuple[bytes, Any]:
    """Return a filter's struct sock_fprog, and the memory that the struct points to, which must outlive it."""
    filters = ctypes.create_string_buffer(program, len(program))
    return struct.pack("HP", len(program) // 8, ctypes.addressof(filters)), filters


def kill_group(pid: int) -> None:
    """Kill the processes that a job without namespaces has left in its process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def tasks_of_user() -> int:
    """Return the number of threads that this user has now on the whole machine."""
    count, user = 0, os.getuid()
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue
    return count


def rehearse() -> None:
    """Run what every job runs, until the interpreter has specialised the bytecode of these functions.

    Otherwise each job would specialise it again, and so copy the memory pages that it shares with this process.
    """
    module = types.ModuleType("rehearsal")
    source = b"from typing import List\n\ndef near(a: List[float], b: float) -> bool:\n    return abs(a[0] - b) < 1\n"
    # CPython (3.11 and later) specialises a function's bytecode after it has run several times.
    for number in range(12):
        exec(compile(source, runner.FILE, "exec", dont_inherit=True), module.__dict__)
        call = codec.encode(("near", [[1.0, 2.0], 3], {}))
        runner.call(module, b"A", runner.NUMBER.pack(number) + call)
        runner.flush()


def limit() -> None:
    """Set the limits that are the same for all jobs. The jobs inherit them from the fork server."""
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
        # An ordinary user may lower a hard limit, but not raise it.
        what = getattr(resource, name)
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def main() -> None:
    """Read the settings, warm up, greet the host, then serve jobs.

    The command line has two numbers: the descriptors of the control socket and of the counter of jobs begun.
    """
    # Copy both descriptors above 10 first, as either of them may already be number 3 or 4.
    control, begun = [fcntl.fcntl(int(given), fcntl.F_DUPFD, 10) for given in sys.argv[1:3]]
    os.dup2(control, CONTROL)
    os.dup2(begun, BEGUN)
    os.closerange(BEGUN + 1, 1024)
    host = socket.socket(fileno=CONTROL)
    settings = json.loads(host.recv(1 << 16))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    limit()
    jail = Zygote(host, settings)
    # Remove the archive that this file was read from: programs import from the standard library only.
    sys.path[:] = [folder for folder in sys.path if os.path.isdir(folder)]
    if "random" in sys.modules:
        sys.modules["random"].seed(0)
    os.environ.clear()
    os.environ.update(settings["environment"])
    sys.argv[:] = [""]
    rehearse()
    gc.collect()
    gc.freeze()  # a job's garbage collector neither visits nor copies the objects that exist now
    host.send(json.dumps({"python": sys.version_info[:3], "modules": len(sys.modules)}).encode())
    try:
        jail.serve()
    except OSError as error:
        host.send(b"!" + str(error).encode())
        os._exit(1)
    os._exit(0)
