"""Rank and number of processes, from the variables that torchrun and deepspeed set, and words for how one was killed.

Imports no torch.
"""

import os
import signal

CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS, signal.SIGTRAP})
"""Signals that a program's own fault raises; others come from outside, such as SIGKILL for lack of memory."""


def rank() -> int:
    """Return this process's number among those that the launcher started; 0 where there is no launcher."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Return how many processes the launcher started; 1 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def killed_by(number: int, peak: int = 0) -> str:
    """Return text such as "killed by SIGKILL at a peak memory of 812 MiB".

    Args:
        number: number of the signal.
        peak: largest resident memory of the process, in bytes; 0 if unknown.
    """
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"killed by {name}" + (f" at a peak memory of {peak / 2**20:,.0f} MiB" if peak else "")
