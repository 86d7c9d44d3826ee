"""The rows of a data section, from the reader that its configuration names."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.curation.config import DataConfig, FileData


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
        UserError: the source is missing or not readable; the message names it.
    """
    module, _, function = config.reader.partition(":")
    reader = getattr(importlib.import_module(module), function)
    return cast(Iterator[SourceRow], reader(config, name=name, seed=seed, root=root))


def file_of(config: FileData, *, name: str, root: Path) -> Path:
    """Return the file of a data section. A relative path is beside the recipe, or else in the working folder.

    Args:
        config: the section.
        name: its name, for messages.
        root: folder of the recipe.

    Raises:
        UserError: the path does not exist, or is a folder.
    """
    path = find_local(root, config.path) or Path(config.path).expanduser()
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "does not exist"
        folders = {(root / config.path).parent, path.parent}
        files = [entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()]
        raise UserError(
            f"data {name}: {config.path} {found} (looked in {root.resolve()} and the working folder)"
            f"{did_you_mean(path.name, files)}; `path` must be {config.format}."
        )
    return path
