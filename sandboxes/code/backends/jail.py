"""The host's side of one jail: the process that holds it, and the socket to its fork server."""

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

REQUEST = struct.Struct("=ddQQQIIIc")  # as in jail/zygote.py
ENDED = struct.Struct("=cidQ")
START_LIMIT = 20.0
CREDENTIALS = struct.Struct("=iII")


class JailError(Exception):
    """A jail did not start, or it is gone. Nothing of it says anything about the job."""


@dataclass(frozen=True)
class JobEnd:
    """The end of a job, as the fork server saw it.

    Attributes:
        why: "E" by itself, "K" killed at the host's word, "C" out of processor time, "W" out of wall time.
        status: the kernel's wait status.
        cpu: seconds of processor time.
        max_rss: bytes of resident memory at most.
    """

    why: str
    status: int
    cpu: float
    max_rss: int

    @property
    def exit(self) -> str:
        """The exit code, or the name of the signal."""
        if os.WIFSIGNALED(self.status):
            try:
                return signal.Signals(os.WTERMSIG(self.status)).name
            except ValueError:
                return f"signal {os.WTERMSIG(self.status)}"
        return str(os.waitstatus_to_exitcode(self.status))


class Keeper:
    """A thread that starts processes and lives until it is closed.

    The kernel sends a child its death signal when the *thread* that started it ends, so that must be none that comes
    and goes.
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
        """Start a process with a clean environment that inherits these descriptors only.

        Args:
            command: its arguments.
            errors: descriptor of its standard error; the other two are /dev/null.
            fds: further descriptors that it inherits, under their numbers.
            executable: what is run, where that is not the first argument.
            environment: its whole environment.
            user: user and group that it becomes first, with no other groups; None: stays this one.
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
        except RuntimeError as error:  # the interpreter is being shut down
            raise JailError(f"could not be started: {error}") from None

    def close(self) -> None:
        """End what still runs, also what is just being started, and let the thread end."""
        self._thread.shutdown(wait=True)
        for process in self._started:
            process.kill()


class Jail:
    """One jail. Used by one thread at a time; `kill` by any.

    Args:
        start: starts the process that holds the jail. The fork server gets the first two descriptors, its end of the
            control socket and a counter of jobs begun; the third one is for the standard error of all that is started.
        settings: for the fork server, see jail/zygote.py.

    Raises:
        JailError: it did not start, with the reason and what it wrote to its standard error.
    """

    def __init__(
        self, start: Callable[[int, int, int], "subprocess.Popen[bytes]"], settings: dict[str, object]
    ) -> None:
        self.pid = 0
        self._pidfd = -1
        self._begun, self._had_control = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), False)
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaints, errors = os.pipe()
        self.control = ours
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            try:
                self.process = start(theirs.fileno(), self._begun, errors)
            except OSError as error:
                raise JailError(f"could not be started: {error}") from error
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
        """What the jail wrote to its standard error; it has ended or is being given up."""
        self.kill()
        os.set_blocking(complaints, False)
        try:
            text = os.read(complaints, 1 << 16).decode(errors="replace").strip()
        except BlockingIOError:
            text = ""
        return text.splitlines()[-1] if text else f"it ended with code {self.process.returncode}"

    def submit(self, limits: Limits, wall: float, mode: bytes, fds: Sequence[int]) -> None:
        """Start a job with these descriptors: standard input (or none), output and error, and the channel.

        Raises:
            JailError: the jail is gone.
        """
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
            raise JailError(f"the fork server is gone: {error}") from None

    def stop_job(self) -> None:
        """Have the job killed. Harmless where it has ended."""
        try:
            self.control.send(b"K", socket.MSG_DONTWAIT)
        except OSError:
            return

    def job_pid(self) -> int:
        """Process id of the job; 0 where there is none, or the system does not tell."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    @staticmethod
    def job_name(pid: int) -> bytes:
        """What a job says of itself in the name of its process."""
        try:
            return Path(f"/proc/{pid}/comm").read_bytes().strip()
        except OSError:
            return b""

    def end(self) -> JobEnd:
        """The end of the job; to be called when the control socket is readable.

        Raises:
            JailError: the jail is gone.
        """
        try:
            message = self.control.recv(1 << 16, socket.MSG_DONTWAIT)
        except OSError:
            message = b""
        if len(message) != ENDED.size:
            raise JailError(f"the fork server is gone {message[1:].decode(errors='replace')}".rstrip())
        why, status, cpu, max_rss = ENDED.unpack(message)
        return JobEnd(why.decode(), status, cpu, max_rss)

    def kill(self) -> None:
        """End the jail and all in it, and wait until it is gone. Harmless when it is gone already."""
        with self._lock:
            if self.process.returncode is not None:
                return
            if self._pidfd >= 0:  # the inner process first: so nobody is left without its parent
                _kill(self._pidfd)
                try:
                    self.process.wait(2.0)
                    return
                except subprocess.TimeoutExpired:
                    pass
            self.process.kill()
            self.process.wait(5.0)

    def close(self) -> None:
        """End the jail and give back its descriptors."""
        self.kill()
        self.control.close()
        with self._lock:
            self._close_begun()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    @property
    def had_control(self) -> bool:
        """Whether a program may have run in the job that is, or was last, in this jail."""
        if not self._had_control and self._begun >= 0:
            try:
                self._had_control = os.eventfd_read(self._begun) > 0
            except BlockingIOError:
                return False
        return self._had_control

    def forget_job(self) -> None:
        """Whatever ran here before has nothing to do with what comes."""
        if self.had_control:
            self._had_control = False

    def _close_begun(self) -> None:
        if self._begun >= 0:
            self._had_control = self.had_control
            os.close(self._begun)
            self._begun = -1

    @property
    def alive(self) -> bool:
        """Whether the process that holds the jail still runs."""
        return self.process.poll() is None


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
