"""`gemsmith export`: write a policy of a run, or any other, in formats that other tools load."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gemsmith.recipes.commands.options import PlaceArgument
from gemsmith.recipes.run.console import captured, own_output, quieten


def export(
    place: PlaceArgument,
    stage: Annotated[str | None, typer.Argument(help="The stage to export; none: the last one with a policy.")] = None,
    to: Annotated[Path, typer.Option("--to", help="The folder to write, new or empty.")] = Path("export"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="transformers (by default), adapter or gguf; may be given several times."),
    ] = None,
    gguf: Annotated[
        str | None, typer.Option("--gguf", help="What a GGUF file stores matrices as: f16 (by default), q8_0 or q4_0.")
    ] = None,
) -> None:
    """Write a policy in formats that other tools load; each is read back and compared before it counts."""
    from gemsmith.recipes.commands.actions.policy_export import export_policy
    from gemsmith.recipes.run.view import LineView

    quieten()
    with own_output() as file:
        view = LineView(file)
        view.show_status("export", "running", 0.0)
        with captured(Path(os.devnull)):
            export_policy(place, stage, to, view, formats or [], gguf)
    print(f"export: {to}")
