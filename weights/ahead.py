"""Blocks of a checkpoint computed on several cores and yielded in order."""

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")
MOST = 8  # threads: beyond them memory is the limit


def computed_ahead(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """Yield `function` of each piece, in order, while threads compute the next few; reading and arithmetic overlap.

    Memory holds one piece per thread besides the current result.
    """
    threads = min(len(os.sched_getaffinity(0)), MOST) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for piece in pieces:
            ahead.append(pool.submit(function, piece))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def keep_freed_memory() -> None:
    """Make glibc keep the memory of a block for the next one, in a process that does nothing but merge.

    By default glibc returns freed memory beyond 128 kB, and the kernel clears each page again: a third of a merge's
    time. Other C libraries are left unchanged.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
