"""Progress messages for waits: what is awaited is printed during the wait, not only when a limit ends it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_WORD = 30.0
"""Seconds until the first line about a wait; each next line comes after twice the time."""
GRACE = 5.0
"""Seconds that a line in progress may take to be written when its wait ends."""


@contextmanager
def waiting(
    say: Callable[[str], None], what: str, limit: float | None = None, state: Callable[[], str] | None = None
) -> Iterator[None]:
    """Print `waiting for WHAT: 60 s of at most 600 s` after 30, 60, 120, ... seconds, until the block or `limit` ends.

    The block must enforce the limit itself. Nothing is printed after it, or for a wait shorter than 30 seconds.

    Args:
        say: function that prints one line; called from another thread.
        what: description, such as "the vLLM engine to generate 96 completions".
        limit: seconds after which the block gives up; None without a limit.
        state: function that returns the progress, such as "12 of 96 completions after"; called from another thread.
    """
    ended = threading.Event()

    def speak() -> None:
        begun, after = time.monotonic(), FIRST_WORD
        while (limit is None or after < limit) and not ended.wait(begun + after - time.monotonic()):
            so_far = f"{state()} " if state else ""
            try:
                say(f"waiting for {what}: {so_far}{after:g} s" + ("" if limit is None else f" of at most {limit:g} s"))
            except (OSError, ValueError):
                return  # the screen is gone: the run's own next word tells that, and the wait goes on
            after *= 2

    speaker = threading.Thread(target=speak, name=f"waiting for {what}", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join(GRACE)
