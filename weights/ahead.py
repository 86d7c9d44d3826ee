"""Blocks of a checkpoint computed on several cores, and taken in their order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")
MOST = 8  # threads: beyond them memory is the limit


def computed_ahead(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """`function` of each piece, in order, while the next few are computed; reading and numpy's arithmetic run at once.

    What is held beside the result in hand is one piece a thread, whatever their number.
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
