"""Communication of the processes that train together, through torch.distributed."""

from typing import Any, TypeVar

import torch
from accelerate import PartialState

from gemsmith.contracts.processes import count

Item = TypeVar("Item")


def initialise_processes() -> None:
    """Initialise torch.distributed if several processes were launched and it is not initialised."""
    if count() > 1 and not _initialised():
        PartialState(cpu=not torch.cuda.is_available())


def from_all(mine: Item) -> list[Item]:
    """Return the values that all processes pass, by rank; every process must call this at the same point."""
    if not _initialised():
        return [mine]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    return found


def wait_for_all() -> None:
    """Wait until every process has called this."""
    from_all(None)


def _initialised() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
