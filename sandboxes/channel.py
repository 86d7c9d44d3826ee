"""Length-prefixed requests to another process and its replies, with a time limit for each reply.

Several requests may be in progress; the process answers them in order. Neither sending nor receiving blocks for longer
than the limit, whatever the process does: not reading, not answering, computing forever, or being stopped by a signal.

A request is an 8-byte length and the body. A reply is an 8-byte length, a kind ("R" for a result, "F" for an exception
that the handler raised) and the body. The length counts the kind and the body.
"""

import os
import select
import struct
import time
from pathlib import Path

LENGTH = struct.Struct(">Q")
# A length above 256 MiB is taken for a corrupt stream rather than a reply: no handler answers with that much, and the
# parent must not buffer without bound for a process that may run untrusted input.
LARGEST_REPLY = 1 << 28
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds in one unit of the processor times in /proc/PID/stat."""


class ChildError(Exception):
    """A child did not answer; the subclass gives the cause. Kill the child and start another one."""


class ChildTimeoutError(ChildError):
    """The child did not answer within the time limit."""


class ChildHeldError(ChildTimeoutError):
    """The child did not answer in time because the system did not run it: a signal stopped it, or it got no processor.

    The request is not the cause.
    """


class ChildExitedError(ChildError):
    """The child has ended or did not start.

    Attributes:
        code: exit code, or minus the number of the signal that ended the child; None if unknown.
    """

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class ChildRaisedError(ChildError):
    """The entry function or the handler raised an exception, which the message names. The child can be used again."""


class ChannelClosedError(ChildError):
    """The other process closed its end of the channel, usually by ending."""


class Channel:
    """The parent's side of a channel. Only one thread at a time may use it.

    Args:
        to_child, from_child: file descriptors for writing and reading; the same number if it is a socket. The channel
            makes them non-blocking.
        pid: process whose processor time is measured against a limit on processor time.
    """

    def __init__(self, to_child: int, from_child: int, pid: int) -> None:
        self._to_child, self._from_child, self._pid = to_child, from_child, pid
        self._pending, self._received = bytearray(), bytearray()
        os.set_blocking(to_child, False)
        os.set_blocking(from_child, False)

    def send(self, request: bytes) -> None:
        """Queue a request; `receive` writes it while it waits for replies."""
        self._pending += LENGTH.pack(len(request)) + request

    def receive(self, time_limit: float, patience: float = 1.0) -> bytes:
        """Return the next reply.

        Args:
            time_limit: seconds to wait for the reply. Wall time if `patience` is 1.
            patience: above 1, `time_limit` limits the child's processor time instead (on Linux), so that a busy machine
                is not mistaken for a slow request. Wall time is then limited to `patience * time_limit`.

        Raises:
            ChildTimeoutError: no reply in time; the subclass ChildHeldError if the system did not run the child.
            ChannelClosedError: the child has closed its end.
            ChildRaisedError: the handler raised an exception.
        """
        clock = _Clock(self._pid, time_limit, patience)
        poll = select.poll()
        # Write and read in one loop: if this side wrote a large request before it read any reply, and the child wrote a
        # large reply before it read that request, both pipes could be full and both sides would wait forever.
        while (reply := self._reply()) is None:
            # Ask for POLLOUT only while there is something to write; otherwise poll would return at once, every time.
            if self._from_child == self._to_child:
                poll.register(self._from_child, select.POLLIN | (select.POLLOUT if self._pending else 0))
            else:
                poll.register(self._from_child, select.POLLIN)
                if self._pending:
                    poll.register(self._to_child, select.POLLOUT)
            for fd, event in poll.poll(clock.left() * 1000):
                # Any event but POLLOUT means read: data, or the hang-up that `_read` turns into an error.
                if fd == self._from_child and event & ~select.POLLOUT:
                    self._read()
                elif fd == self._to_child:
                    self._write()
                    if not self._pending and fd != self._from_child:
                        poll.unregister(fd)
        kind, body = reply[:1], reply[1:]
        if kind == b"F":
            raise ChildRaisedError(body.decode(errors="replace"))
        return body

    def closed(self) -> bool:
        """Return whether the child has closed its end. Call only when no request is in progress."""
        poll = select.poll()
        poll.register(self._from_child, select.POLLIN)
        return bool(poll.poll(0))

    def _reply(self) -> bytes | None:
        """Remove one whole reply (kind and body) from the received bytes and return it; None if there is none yet."""
        if len(self._received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._received)
        if length > LARGEST_REPLY:
            raise ChannelClosedError(f"sent an invalid reply: a length of {length} bytes, at most {LARGEST_REPLY}")
        end = LENGTH.size + length
        if len(self._received) < end:
            return None
        reply = bytes(self._received[LENGTH.size : end])
        del self._received[:end]
        return reply

    def _write(self) -> None:
        try:
            del self._pending[: os.write(self._to_child, self._pending)]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            # The child no longer reads, but replies that it sent before may still be unread. So do not raise here:
            # `_read` returns those first and then reports the end.
            self._pending.clear()

    def _read(self) -> None:
        try:
            chunk = os.read(self._from_child, 1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise ChannelClosedError("closed its pipe")
        self._received += chunk


class _Clock:
    """The time left of one wait."""

    def __init__(self, pid: int, time_limit: float, patience: float) -> None:
        self._pid, self._limit, self._patience = pid, time_limit, patience
        self._start = time.monotonic()
        self._deadline = self._start + time_limit
        self._computed = _usage(pid)[1] if patience > 1 else None

    def left(self) -> float:
        """Return the seconds until the limit could be reached at the earliest.

        Raises:
            ChildTimeoutError: the limit is reached.
        """
        # `_deadline` is the earliest moment at which the limit can be reached: a child of one thread computes for at
        # most as long as wall time passes. Only then is its processor time read, and the deadline moved forward by what
        # is left of it.
        now = time.monotonic()
        if now < self._deadline:
            return self._deadline - now
        state, computed = _usage(self._pid)
        if state == "T":
            raise ChildHeldError(f"was stopped by a signal, and no answer came within {self._limit:g} s")
        if self._computed is not None and computed is not None:
            used, end = computed - self._computed, self._start + self._patience * self._limit
            self._deadline = min(end, now + self._limit - used)
            if self._deadline > now + TICK:
                return self._deadline - now
            # The wall limit is reached. A child that is ready to run, but ran for less than half of its limit, waited
            # for a processor; a child that sleeps did not, and is at fault itself.
            if state == "R" and used < self._limit / 2:
                raise ChildHeldError(f"got {used:.2g} s of processor time in {now - self._start:.2g} s of wall time")
        raise ChildTimeoutError(f"no answer within {self._limit:g} s")


def _usage(pid: int) -> tuple[str, float | None]:
    """Return a process's state ("R": ready to run, "T": stopped) and its processor time in seconds.

    Return ("", None) if the system has no /proc or the process has ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", None
    return fields[0].upper(), (int(fields[11]) + int(fields[12])) * TICK
