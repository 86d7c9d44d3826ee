"""Waits that speak: what is waited for is said while it is, and not only when a limit ends it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_WORD = 30.0
"""Seconds until the first line about a wait; the next come after twice as long each time."""
GRACE = 5.0
"""Seconds that a line under way may take to be written when its wait ends."""


@contextmanager
def waiting(
    say: Callable[[str], None], what: str, limit: float | None = None, state: Callable[[], str] | None = None
) -> Iterator[None]:
    """Say `waiting for WHAT: 60 s of at most 600 s` after 30, 60, 120, ... seconds, until the block or `limit` ends.

    The block must keep the limit itself. Nothing is said after it, and nothing about a wait shorter than 30 seconds.

    Args:
        say: takes one line, from another thread.
        what: as in "the vLLM engine to draw 96 completions".
        limit: seconds after which the block gives up; None: it has no limit.
        state: how far it is, such as "12 of 96 completions after"; asked from another thread.
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
