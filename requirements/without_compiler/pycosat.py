"""Stands in for pycosat on a machine without a C compiler: reasoning-gym imports it, and only zebra_puzzles calls it."""

from typing import NoReturn


def itersolve(*_: object, **__: object) -> NoReturn:
    """Say what is missing.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("pycosat needs a C compiler: install gcc, remove .venv/ready and run make again")


solve = itersolve
