"""Arguments and options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RecipeArgument = Annotated[str, typer.Argument(help="Recipe file, or name of a shipped recipe such as quickstart.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field, such as stages.sft.steps=10. Can be repeated."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder of the run. Default: runs/NAME, with the recipe's name.")
]
PlaceArgument = Annotated[Path, typer.Argument(help="Folder of a run or of a model.")]


def default_out(name: str) -> Path:
    """Return the folder of a recipe's run if `--out` is not set."""
    return Path("runs") / name


def wide_console() -> Console:
    """Return a console on standard output: as wide as the terminal, or 160 columns if it is not a terminal."""
    file = getattr(sys.stdout, "unescaped", sys.stdout)
    console = Console(file=file)
    return console if console.is_terminal else Console(file=file, width=160)
