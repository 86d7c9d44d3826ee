"""Standard output that may be closed or full: writing to it ends with a sentence about it, and about nothing else."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from gemsmith.contracts.errors import RunError
from gemsmith.contracts.escaping import visible


class OutputLostError(RunError):
    """Standard output cannot be written."""


class _Output(io.RawIOBase):
    """A file descriptor whose failed write raises `OutputLostError` once; what follows is discarded."""

    def __init__(self, descriptor: int, *, owned: bool) -> None:
        self._descriptor, self._owned, self._lost = descriptor, owned, False

    def write(self, data: Any) -> int:
        failed: OSError | None = None
        if not self._lost:
            try:
                return os.write(self._descriptor, data)
            except BrokenPipeError:  # the program that reads our output has ended, as `head` does
                self._lost = True
                raise
            except OSError as error:
                failed, self._lost = error, True
        if failed is not None:  # raised here, so that the full disk is not taken for that of the run
            raise OutputLostError(
                f"standard output could not be written: {failed.strerror}; give it another place, and run the same "
                "command again (a run continues)"
            )
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def close(self) -> None:
        if self._owned and not self.closed:
            os.close(self._descriptor)
        super().close()


class EscapingStream(io.TextIOWrapper):
    """A text stream that writes control characters out, so that what users, files and models wrote cannot act.

    `unescaped` is a second stream on the same buffer, for a program that draws with control characters itself.
    """

    unescaped: IO[str]

    def write(self, text: str) -> int:
        """Write the text with control characters made visible."""
        super().write(visible(text))
        return len(text)


def output_stream(descriptor: int, *, owned: bool, encoding: str = "utf-8") -> IO[str]:
    """Return a text stream, by lines, that writes to a descriptor; `owned` closes it with the stream."""
    buffered = io.BufferedWriter(_Output(descriptor, owned=owned))
    return io.TextIOWrapper(buffered, encoding=encoding, errors="replace", line_buffering=True)


def is_guarded(stream: object) -> bool:
    """Return True if `output_stream` made the stream: its failed writes are blamed on standard output."""
    return isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _Output)


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Run a command with a standard output that fails with a sentence; nothing changes if it is no descriptor.

    Standard streams that are closed are opened on the null device: otherwise the next file that is opened would take
    their numbers, and receive what is printed.

    Raises:
        OutputLostError: what the command printed could not be written.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number, which is this one
    before = sys.stdout
    try:
        number = before.fileno() if before is not None else -1
    except (AttributeError, OSError, ValueError):  # a stream of a notebook or of a test
        number = -1
    if number != 1:
        yield
        return
    before.flush()
    buffered = io.BufferedWriter(_Output(1, owned=False))
    stream = EscapingStream(buffered, encoding=before.encoding, errors="replace", line_buffering=True)
    stream.unescaped = io.TextIOWrapper(buffered, encoding=before.encoding, errors="replace", line_buffering=True)
    sys.stdout = stream
    try:
        yield
        stream.flush()
    finally:
        with contextlib.suppress(OutputLostError, BrokenPipeError):
            stream.flush()
        sys.stdout = before
