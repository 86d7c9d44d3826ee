"""One program in a jail, from start to end: exchanged frames, output, and deadlines."""

import os
import select
import signal
import socket
import struct
import time
from enum import StrEnum

from gemsmith.sandboxes.code.backends.jail import Jail, JailError, JobEnd
from gemsmith.sandboxes.code.jobs import Limits

LENGTH = struct.Struct(">I")
GRACE = 1.0
"""Seconds beyond a job's deadline for the fork server to report its end; then the jail is killed."""


class Why(StrEnum):
    """Reason why a program sends no more frames."""

    ENDED = "ended"
    TIMEOUT = "timeout"
    OUTPUT = "output_limit"
    PROTOCOL = "protocol"


class TrialEnd(Exception):
    """The program will send no more frames."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why = why


class Trial:
    """A program that was handed to a jail.

    Args:
        jail: the jail; it must be idle.
        limits: limits of the job.
        mode: "S" for a script, "F" for functions, "J" for a judge.
        stdin: standard input of the program.
        wall: wall time in seconds. Default: from the limits.

    Raises:
        JailError: the jail is gone (raised by every method).
    """

    def __init__(self, jail: Jail, limits: Limits, mode: bytes, stdin: bytes = b"", wall: float | None = None) -> None:
        self._wall = limits.wall if wall is None else wall
        self._jail, self.limits = jail, limits
        self.stdout, self.stderr = bytearray(), bytearray()
        self.end: JobEnd | None = None
        self.failure: TrialEnd | None = None
        self._received = bytearray()
        self._pid = self._frames = 0
        self._settled = self._writing = False
        self._started = time.monotonic()
        self._deadline = self._started + self._wall
        self._poll = select.poll()
        self._texts: dict[int, bytearray] = {}
        self._input = memoryview(stdin)
        self._outgoing = memoryview(b"")
        theirs: list[int] = []
        ours, channel = socket.socketpair()
        self._channel = ours
        ours.setblocking(False)
        self._stdin = -1
        try:
            if self._input:
                given, self._stdin = os.pipe()
                theirs.append(given)
                os.set_blocking(self._stdin, False)
            for text in (self.stdout, self.stderr):
                reading, writing = os.pipe()
                os.set_blocking(reading, False)
                theirs.append(writing)
                self._texts[reading] = text
                self._poll.register(reading, select.POLLIN)
            jail.submit(limits, self._wall, mode, [*theirs, channel.fileno()])
            self._poll.register(ours, select.POLLIN)
            self._poll.register(jail.control, select.POLLIN)
            if self._input:
                self._poll.register(self._stdin, select.POLLOUT)
        except BaseException:
            self.close()
            raise
        finally:
            channel.close()
            for fd in theirs:
                os.close(fd)

    def send(self, *frames: tuple[bytes, bytes]) -> None:
        """Send frames, each a kind and a body, to the program; what does not fit yet is written while waiting for
        the next one.
        """
        parts = [bytes(self._outgoing)]
        for kind, body in frames:
            parts += [LENGTH.pack(len(body) + 1), kind, body]
        self._outgoing = memoryview(b"".join(parts))
        self._write()

    def receive(self, largest: int, cpu: float) -> tuple[bytes, bytes]:
        """Return the program's next frame: its kind and its body.

        Args:
            largest: maximum size of the body, in bytes.
            cpu: processor time that the program may use from now on, or from the moment it is loaded, in seconds.

        Raises:
            TrialEnd: there will be no frame.
        """
        begun = time.monotonic()
        used = self._clock() if self._pid else None
        check = begun + cpu
        while True:
            if len(self._received) >= 5:
                size = LENGTH.unpack_from(self._received)[0]
                if not 1 <= size <= largest + 1:
                    self._give_up(Why.PROTOCOL, f"a frame of {size} bytes, where {largest} are allowed")
                if len(self._received) >= 4 + size:
                    frame = bytes(self._received[4 : 4 + size])
                    del self._received[: 4 + size]
                    self._frames += 1
                    return frame[:1], frame[1:]
            if self.failure:
                raise self.failure
            if self.end is not None:
                self._fail_by_end()
            now = time.monotonic()
            if now >= check:
                self.locate()
                if used is None:
                    used = self._used_before(begun)
                left = cpu - (self._clock() - used)
                if left <= 0:
                    self._give_up(Why.TIMEOUT, f"more than {cpu:g} s of processor time for one case")
                check = now + max(left, 0.002)
                used = None if used == float("inf") else used
            self._step(check)

    def locate(self) -> None:
        """Determine the program's process id, to read its processor time."""
        if self._pid == 0 and self.end is None:
            self._pid = self._jail.job_pid()

    def _used_before(self, begun: float) -> float:
        """Return the processor time that the program had used when a case began; infinite while it is being loaded."""
        if self._frames:
            return begun - self._started  # at most that
        name, _, milliseconds = self._jail.job_name(self._pid).partition(b" ")
        if name != b"loaded" or not milliseconds.isdigit():
            return float("inf")
        return min(int(milliseconds) / 1000, self._clock())  # the program could have named itself

    def finish(self, patience: float) -> JobEnd:
        """Wait for the end of the program, or end it after the given seconds; close its descriptors."""
        until = time.monotonic() + patience
        while self.end is None and time.monotonic() < until:
            self._step(until)
        if self.end is None:
            self._jail.stop_job()
            self._settled = True
            self._deadline = min(self._deadline, time.monotonic())
        while self.end is None:
            self._step(float("inf"))
        self.close()
        if not self._jail.had_control:
            said = self.last_frame()[1].decode(errors="replace")
            raise JailError(f"a job did not start: {said or self.end.exit}")
        return self.end

    def last_frame(self) -> tuple[bytes, bytes]:
        """Return the last frame of a program that has ended, if there is one: for a script, its loader's message."""
        frames = bytes(self._received)
        kind, body = b"", b""
        while len(frames) >= 5 and 1 <= LENGTH.unpack_from(frames)[0] <= len(frames) - 4:
            size = LENGTH.unpack_from(frames)[0]
            kind, body, frames = frames[4:5], frames[5 : 4 + size], frames[4 + size :]
        return kind, body

    def late(self, end: JobEnd) -> str:
        """Return which time limit a program has exceeded."""
        if end.why == "W":
            return f"more than {self._wall:.3g} s of wall time"
        return f"more than {self.limits.cpu:g} s of processor time"

    def close(self) -> None:
        """Close the descriptors."""
        self._channel.close()
        for fd in self._texts:
            os.close(fd)
        self._texts = {}
        self._close_stdin()

    def _step(self, until: float) -> None:
        """Wait for one event, and handle it."""
        now = time.monotonic()
        last = self._deadline + GRACE
        if now > last:
            self._jail.kill()
            if not self._jail.had_control:
                raise JailError("the fork server did not answer")
            self.end = JobEnd("K" if self._settled else "W", signal.SIGKILL, self._clock(), 0)
            return
        for fd, event in self._poll.poll(max(0.0, min(until, last) - now) * 1000 + 0.5):
            if fd == self._channel.fileno():
                if event & select.POLLOUT:
                    self._write()
                if event & ~select.POLLOUT:
                    self._read()
            elif fd == self._stdin:
                self._feed()
            elif fd in self._texts:
                self._read_output(fd)
            else:
                self.end = self._jail.end()
                self._drain()
                return

    def _read(self) -> None:
        try:
            data = self._channel.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            if not self._settled:
                self._received += data
        else:
            self._poll.unregister(self._channel)
            if self.failure is None:
                self.failure = TrialEnd(Why.ENDED, "closed its channel")

    def _write(self) -> None:
        try:
            sent = self._channel.send(self._outgoing)
            self._outgoing = self._outgoing[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing = memoryview(b"")
        wanted = select.POLLIN | select.POLLOUT if self._outgoing else select.POLLIN
        if self._writing != bool(self._outgoing):
            self._writing = bool(self._outgoing)
            self._poll.modify(self._channel, wanted)

    def _feed(self) -> None:
        try:
            self._input = self._input[os.write(self._stdin, self._input[: 1 << 18]) :]
        except BlockingIOError:
            return
        except OSError:
            self._input = memoryview(b"")
        if not self._input:
            self._poll.unregister(self._stdin)
            self._close_stdin()

    def _read_output(self, fd: int) -> bool:
        """Read printed output; return True if there may be more."""
        text = self._texts[fd]
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._poll.unregister(fd)
            return False
        text += data
        if len(text) > self.limits.output:
            del text[self.limits.output :]
            if self.failure is None or self.failure.why is Why.ENDED:
                self.failure = TrialEnd(Why.OUTPUT, f"more than {self.limits.output} bytes of output")
            self._poll.unregister(fd)
            self._jail.stop_job()
            self._deadline = min(self._deadline, time.monotonic())
            return False
        return True

    def _drain(self) -> None:
        """Read the rest of the pipes of a program that has ended."""
        for fd in self._texts:
            if len(self._texts[fd]) < self.limits.output:
                while self._read_rest(fd):
                    pass
        if not (self.failure and self.failure.why is Why.ENDED):
            while True:
                before = len(self._received)
                try:
                    self._received += self._channel.recv(1 << 18)
                except OSError:
                    break
                if len(self._received) == before or before > 1 << 27:
                    break

    def _read_rest(self, fd: int) -> bool:
        try:
            data = os.read(fd, 1 << 16)
        except OSError:
            return False
        text = self._texts[fd]
        text += data
        if len(text) > self.limits.output:
            del text[self.limits.output :]
            self.failure = TrialEnd(Why.OUTPUT, f"more than {self.limits.output} bytes of output")
            return False
        return bool(data)

    def _fail_by_end(self) -> None:
        assert self.end is not None
        if self.end.why in ("C", "W"):
            self._give_up(Why.TIMEOUT, self.late(self.end))
        self._give_up(Why.ENDED, f"ended with {self.end.exit}")

    def _give_up(self, why: Why, reason: str) -> None:
        self.failure = TrialEnd(why, reason)
        raise self.failure

    def _clock(self) -> float:
        """Return the processor time that the program has used so far, in seconds."""
        if self._pid <= 0:
            return 0.0
        try:
            return time.clock_gettime((~self._pid << 3) | 2)
        except OSError:
            return 0.0

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
