"""Stands in for pycosat where there is no C compiler: reasoning-gym imports it, only zebra_puzzles calls it."""

from typing import NoReturn


def itersolve(*_: object, **__: object) -> NoReturn:
    """Say what is missing.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("pycosat needs a C compiler: install gcc, remove .venv/ready and run make again")


solve = itersolve
