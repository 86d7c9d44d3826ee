"""The processes that train together, as data: which one this is, and what the others have."""

import os
from typing import Any, TypeVar

import torch
from accelerate import PartialState

Item = TypeVar("Item")


def meet() -> None:
    """Find the other processes, if a launcher started several and they have not met; nothing else here does so."""
    if count() > 1 and not _together():
        PartialState(cpu=not torch.cuda.is_available())


def rank() -> int:
    """Which of the processes that train together this is, as the launcher told; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes train together, as the launcher told."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def from_all(mine: Item) -> list[Item]:
    """What each process passes, by rank; every process must call it at the same point."""
    if not _together():
        return [mine]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    return found


def wait_for_all() -> None:
    """Go on when every process has come here."""
    from_all(None)


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
