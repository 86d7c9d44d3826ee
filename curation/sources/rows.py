"""Read the rows of a data section by the reader that its configuration names."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gemsmith.curation.config import DataConfig


@dataclass(frozen=True)
class SourceRow:
    """Columns of one row, and where it comes from, for messages."""

    where: str
    columns: Mapping[str, Any]


def rows_of(config: DataConfig, *, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """Return the rows of a data section in their order.

    Args:
        config: the section.
        name: its name, for messages.
        seed: seed of procedural sources.
        root: folder of the recipe.

    Raises:
        UserError: the source is not there or not readable; says which and where.
    """
    module, _, function = config.reader.partition(":")
    reader = getattr(importlib.import_module(module), function)
    return cast(Iterator[SourceRow], reader(config, name=name, seed=seed, root=root))
