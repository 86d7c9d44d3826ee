"""Arguments and options that several commands share, and what they mean."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one, such as quickstart.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as in stages.sft.steps=10.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="The run's folder; by default runs/ and the recipe's name.")
]
PlaceArgument = Annotated[Path, typer.Argument(help="A run's folder, or a model's.")]


def default_out(name: str) -> Path:
    """Return the folder of a recipe's run where `--out` names none."""
    return Path("runs") / name


def wide_console() -> Console:
    """Return standard output, as wide as its terminal, or wide enough for every table where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
