"""Requests to another process and its replies, length-prefixed, each reply awaited against a limit of its own.

Several requests may be under way: the process answers them in order. Neither side of a wait can block for longer than
its limit, whatever the process does: not reading, not answering, computing for ever, or being stopped by a signal.
"""

import os
import select
import struct
import time
from pathlib import Path

LENGTH = struct.Struct(">Q")
LARGEST_REPLY = 1 << 28
TICK = 1 / os.sysconf("SC_CLK_TCK")


class ChildError(Exception):
    """A child did not answer; its subclasses say why. The child must be killed and another one started."""


class ChildTimeoutError(ChildError):
    """The child had not answered at the time limit."""


class ChildHeldError(ChildTimeoutError):
    """The child had not answered at the time limit, because the system did not let it: it is stopped, or starved."""


class ChildExitedError(ChildError):
    """The child is gone or never was. `code` is its exit code (minus the signal that ended it), None if unknown."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class ChildRaisedError(ChildError):
    """The entry function or the handler raised; the message is the child's. The child itself is still well."""


class ChannelClosedError(ChildError):
    """The other process closed its end, mostly by ending."""


class Channel:
    """The parent's ends. One thread at a time.

    Args:
        to_child, from_child: file descriptors, which may be the same one; they are made non-blocking.
        pid: whose processor time counts where a limit is one of computing.
    """

    def __init__(self, to_child: int, from_child: int, pid: int) -> None:
        self._to_child, self._from_child, self._pid = to_child, from_child, pid
        self._pending, self._received = bytearray(), bytearray()
        os.set_blocking(to_child, False)
        os.set_blocking(from_child, False)

    def send(self, request: bytes) -> None:
        """Put a request on its way; it is written while replies are awaited."""
        self._pending += LENGTH.pack(len(request)) + request

    def receive(self, time_limit: float, patience: float = 1.0) -> bytes:
        """The next reply.

        Args:
            time_limit: seconds until the wait is given up.
            patience: above 1, `time_limit` counts the seconds that the child has computed (on Linux), so that a busy
                machine is not mistaken for a slow request; wall time is limited to `patience` times `time_limit`.

        Raises:
            ChildTimeoutError: no reply in time; ChildHeldError where that is the system's doing.
            ChannelClosedError: the child has closed its end.
            ChildRaisedError: the handler raised.
        """
        clock = _Clock(self._pid, time_limit, patience)
        poll = select.poll()
        while (reply := self._reply()) is None:
            if self._from_child == self._to_child:
                poll.register(self._from_child, select.POLLIN | (select.POLLOUT if self._pending else 0))
            else:
                poll.register(self._from_child, select.POLLIN)
                if self._pending:
                    poll.register(self._to_child, select.POLLOUT)
            for fd, event in poll.poll(clock.left() * 1000):
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
        """Whether the child has closed its end; to be asked when nothing is under way."""
        poll = select.poll()
        poll.register(self._from_child, select.POLLIN)
        return bool(poll.poll(0))

    def _reply(self) -> bytes | None:
        """Take one whole reply out of what was received."""
        if len(self._received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._received)
        if length > LARGEST_REPLY:
            raise ChannelClosedError("sent what was not understood")
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
            self._pending.clear()  # what it had answered before is still to be read; then comes the end

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
    """How long a wait may still last."""

    def __init__(self, pid: int, time_limit: float, patience: float) -> None:
        self._pid, self._limit, self._patience = pid, time_limit, patience
        self._start = time.monotonic()
        self._deadline = self._start + time_limit
        self._computed = _usage(pid)[1] if patience > 1 else None

    def left(self) -> float:
        """Seconds until the limit, as far as is known now.

        Raises:
            ChildTimeoutError: there are none left.
        """
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
            if state == "R" and used < self._limit / 2:
                raise ChildHeldError(f"was given {used:.2g} s of a processor in {now - self._start:.2g} s")
        raise ChildTimeoutError(f"no answer within {self._limit:g} s")


def _usage(pid: int) -> tuple[str, float | None]:
    """State of a process (T: stopped) and the seconds that it has computed; ("", None) where nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", None
    return fields[0].upper(), (int(fields[11]) + int(fields[12])) * TICK
