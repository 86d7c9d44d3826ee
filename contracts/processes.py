"""Rank and number of processes, from the variables that torchrun and deepspeed set. Imports no torch."""

import os


def rank() -> int:
    """Return this process's number among those that the launcher started; 0 where there is no launcher."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Return how many processes the launcher started; 1 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))
