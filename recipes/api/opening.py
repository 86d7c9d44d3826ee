"""Open a recipe for the Python API: a path, the name of a shipped recipe, or a mapping."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.schema.source import find_recipe, override, read_mapping, read_source

if TYPE_CHECKING:
    from gemsmith.recipes.pipeline.pipeline import Pipeline

RecipeLike = str | os.PathLike[str] | Mapping[str, Any]
"""Path of a recipe, name of a shipped recipe, or the recipe itself as a mapping."""


def open_pipeline(recipe: RecipeLike, values: Mapping[str, Any] | None) -> "Pipeline":
    """Read and check a recipe, after setting `values` by their dotted names.

    Relative paths in a recipe file are looked up in the file's folder first, then in the working folder. Those in a
    mapping are looked up in the working folder.

    Raises:
        UserError: one line for each fault of the recipe.
    """
    from gemsmith.recipes.pipeline.pipeline import open_source

    if isinstance(recipe, Mapping):
        source = read_mapping(recipe)
    elif isinstance(recipe, str | os.PathLike):
        source = read_source(find_recipe(os.fspath(recipe)))
    else:
        raise UserError(
            f"recipe: found an object of type {type(recipe).__name__}, expected a path, the name of a shipped recipe "
            "or a dict"
        )
    override(source, values or {})
    return open_source(source)


def run_folder(out: str | os.PathLike[str] | None, name: str) -> Path:
    """Return the absolute folder of a run: `out`, or `runs/NAME` in the working folder."""
    return (Path("runs") / name if out is None else Path(out).expanduser()).absolute()
