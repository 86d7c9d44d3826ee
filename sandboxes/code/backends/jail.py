"""The host's side of one jail: the process that runs it, and the control socket to its fork server.

The messages on the control socket, and their order, are described in jail/zygote.py. The fork server is trusted until
it forks a job. Nothing that a job writes arrives on the control socket.
"""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gemsmith.sandboxes.code.jobs import Limits

# The same as in jail/zygote.py, which cannot import this project.
REQUEST = struct.Struct("=ddQQQIIIc")
ENDED = struct.Struct("=cidQ")
# Building the namespaces, starting Python and importing the standard library takes a fraction of a second; the limit
# leaves room for a busy machine and a slow disk.
START_LIMIT = 20.0
CREDENTIALS = struct.Struct("=iII")  # struct ucred: process, user and group id


class JailError(Exception):
    """A jail did not start, or it has ended. The error alone does not mean that the job is at fault.

    Messages begin with a verb, such as "did not start": `Pool` puts "a jail" in front.
    """


@dataclass(frozen=True)
class JobEnd:
    """The end of a job, as its fork server reported it.

    Attributes:
        why: cause: "E" it ended by itself, "K" it was killed for the host, "C" it used up its processor time, "W" it
            used up its wall time.
        status: the kernel's wait status.
        cpu: seconds of processor time used.
        max_rss: largest resident memory in bytes.
    """

    why: str
    status: int
    cpu: float
    max_rss: int

    @property
    def exit(self) -> str:
        """Return the exit code as text, or the name of the signal that ended the job."""
        if os.WIFSIGNALED(self.status):
            try:
                return signal.Signals(os.WTERMSIG(self.status)).name
            except ValueError:
                return f"signal {os.WTERMSIG(self.status)}"
        return str(os.waitstatus_to_exitcode(self.status))


class Keeper:
    """A thread that starts the processes of all jails, and lives until it is closed.

    The kernel sends a process its parent-death signal when the *thread* that started it ends. So jails must not be
    started by the threads that run jobs, which may end earlier.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jail-keeper")
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        command: Sequence[str],
        errors: int,
        fds: Sequence[int],
        *,
        executable: str | None = None,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a process that gets only the given environment and descriptors, and return it.

        Args:
            command: arguments, the first of which is the program.
            errors: descriptor for its standard error; standard input and output are /dev/null.
            fds: further descriptors that it inherits, under the same numbers.
            executable: path of the program, if it is not the first argument.
            environment: its complete environment.
            user: user and group id to switch to before the program starts, without supplementary groups; None: this
                process's.

        Raises:
            JailError: the interpreter is shutting down.
            OSError: the program could not be started.
        """

        def start() -> "subprocess.Popen[bytes]":
            process = subprocess.Popen(
                command,
                executable=executable,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=fds,
                env=dict(environment or {}),
                cwd="/",
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
            self._started = [one for one in self._started if one.returncode is None] + [process]
            return process

        try:
            return self._thread.submit(start).result()
        # Raised by `submit` while the interpreter shuts down.
        except RuntimeError as error:
            raise JailError(f"could not be started: {error}") from None

    def close(self) -> None:
        """Kill the processes that still run, including one that is being started, and end the thread."""
        self._thread.shutdown(wait=True)
        for process in self._started:
            process.kill()


class Jail:
    """One jail. Only one thread at a time may use it, except for `kill`.

    Args:
        start: function that starts the jail's outermost process. It receives three descriptors: the fork server's end
            of the control socket, the counter of jobs begun (both for the fork server), and the standard error of all
            processes.
        settings: settings for the fork server, see jail/zygote.py.

    Raises:
        JailError: the jail did not start; the message has the reason, or what the jail wrote to its standard error.
    """

    def __init__(
        self, start: Callable[[int, int, int], "subprocess.Popen[bytes]"], settings: dict[str, object]
    ) -> None:
        # `process` is the outermost process, such as bubblewrap. `pid` and `_pidfd` are the fork server inside; they
        # are known once it has greeted.
        self.pid = 0
        self._pidfd = -1
        self._begun, self._had_control = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), False)
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaints, errors = os.pipe()
        self.control = ours
        try:
            # The greeting arrives with the sender's process id, translated by the kernel into this PID namespace. The
            # fork server itself does not know it.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            try:
                self.process = start(theirs.fileno(), self._begun, errors)
            except OSError as error:
                raise JailError(f"could not be started: {error}") from error
            # Close the jail's ends here, so that reading `ours` or `complaints` ends when the jail ends.
            finally:
                theirs.close()
                os.close(errors)
            try:
                self._greet(settings, complaints)
            except BaseException:
                self.close()
                raise
        except BaseException:
            ours.close()
            self._close_begun()
            raise
        finally:
            os.close(complaints)

    def _greet(self, settings: dict[str, object], complaints: int) -> None:
        """Send the settings, wait for the fork server's greeting, and record its process id."""
        try:
            self.control.send(json.dumps(settings).encode())
        except OSError:
            raise JailError(f"did not start: {self._complaint(complaints)}") from None
        ready = select.poll()
        ready.register(self.control, select.POLLIN)
        if not ready.poll(START_LIMIT * 1000):
            raise JailError(f"had not started after {START_LIMIT:g} s: {self._complaint(complaints)}")
        try:
            message, ancillary, _, _ = self.control.recvmsg(1 << 16, socket.CMSG_SPACE(CREDENTIALS.size))
        except OSError:
            message, ancillary = b"", []
        if not message or message.startswith(b"!"):
            raise JailError(f"did not start: {message[1:].decode(errors='replace') or self._complaint(complaints)}")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid = CREDENTIALS.unpack(data)[0]
                self._pidfd = os.pidfd_open(self.pid)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        self.greeting = json.loads(message)

    def _complaint(self, complaints: int) -> str:
        """Kill a jail that did not start, and return the last line of its standard error, or its exit code."""
        # Kill first: then all that it wrote is in the pipe. Do not block: a process that survived may hold it open.
        self.kill()
        os.set_blocking(complaints, False)
        try:
            text = os.read(complaints, 1 << 16).decode(errors="replace").strip()
        except BlockingIOError:
            text = ""
        return text.splitlines()[-1] if text else f"it ended with code {self.process.returncode}"

    def submit(self, limits: Limits, wall: float, mode: bytes, fds: Sequence[int]) -> None:
        """Ask the fork server to start a job. The jail must have no other job.

        Args:
            limits: limits of the job.
            wall: seconds of wall time that the job may take.
            mode: "S" script, "F" functions, "J" judge.
            fds: descriptors for the job: standard input (optional), standard output, standard error, and the channel.

        Raises:
            JailError: the jail has ended.
        """
        # One limit on the size of a file serves /tmp and the standard streams, in case those are files.
        largest = max(limits.scratch, limits.output)
        self.forget_job()
        request = REQUEST.pack(
            limits.cpu,
            wall,
            limits.memory,
            limits.scratch,
            largest,
            limits.files,
            limits.processes,
            limits.threads,
            mode,
        )
        try:
            socket.send_fds(self.control, [request], fds)
        except OSError as error:
            raise JailError(f"ended: its fork server cannot be reached: {error}") from None

    def stop_job(self) -> None:
        """Ask the fork server to kill the job. Safe to call after the job has ended."""
        # Do not block: if the socket is full or closed, the caller's deadline ends the whole jail instead.
        try:
            self.control.send(b"K", socket.MSG_DONTWAIT)
        except OSError:
            return

    def job_pid(self) -> int:
        """Return the job's process id in this PID namespace; 0 if there is no job or the system does not report it."""
        # The job is the only child of the fork server.
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    @staticmethod
    def job_name(pid: int) -> bytes:
        """Return the name of a job's process, which the job can set itself."""
        try:
            return Path(f"/proc/{pid}/comm").read_bytes().strip()
        except OSError:
            return b""

    def end(self) -> JobEnd:
        """Return how the job ended. Call when the control socket is readable.

        Raises:
            JailError: the jail has ended.
        """
        # An empty message is a hang-up, and one that begins with "!" is the fork server's last error.
        try:
            message = self.control.recv(1 << 16, socket.MSG_DONTWAIT)
        except OSError:
            message = b""
        if len(message) != ENDED.size:
            raise JailError(f"ended: its fork server exited {message[1:].decode(errors='replace')}".rstrip())
        why, status, cpu, max_rss = ENDED.unpack(message)
        return JobEnd(why.decode(), status, cpu, max_rss)

    def kill(self) -> None:
        """Kill the jail and all processes in it, and wait until they have ended. Safe to call repeatedly."""
        with self._lock:
            if self.process.returncode is not None:
                return
            # Kill the fork server first: the outer process waits for it and then ends by itself. The other order could
            # leave the fork server running without a parent.
            if self._pidfd >= 0:
                _kill(self._pidfd)
                try:
                    self.process.wait(2.0)
                    return
                except subprocess.TimeoutExpired:
                    pass
            self.process.kill()
            self.process.wait(5.0)

    def close(self) -> None:
        """Kill the jail and close its descriptors."""
        self.kill()
        self.control.close()
        with self._lock:
            self._close_begun()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    @property
    def had_control(self) -> bool:
        """Return whether the current or last job got as far as running its program, which may then be at fault."""
        # The job increments the counter directly before it runs its program; reading it resets it to 0.
        if not self._had_control and self._begun >= 0:
            try:
                self._had_control = os.eventfd_read(self._begun) > 0
            except BlockingIOError:
                return False
        return self._had_control

    def forget_job(self) -> None:
        """Reset `had_control` before the next job."""
        if self.had_control:
            self._had_control = False

    def _close_begun(self) -> None:
        if self._begun >= 0:
            self._had_control = self.had_control
            os.close(self._begun)
            self._begun = -1

    @property
    def alive(self) -> bool:
        """Return whether the jail's outermost process still runs."""
        return self.process.poll() is None


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
