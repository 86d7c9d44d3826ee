"""The processes that train together, as data: which one this is, and what the others have."""

from typing import Any, TypeVar

import torch
from accelerate import PartialState

from gemsmith.policy.training.launcher import count, rank

__all__ = ["count", "from_all", "meet", "rank", "wait_for_all"]

Item = TypeVar("Item")


def meet() -> None:
    """Find the other processes, if a launcher started several and they have not met; nothing else here does so."""
    if count() > 1 and not _together():
        PartialState(cpu=not torch.cuda.is_available())


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
