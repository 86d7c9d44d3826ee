"""`gemsmith export`: write a policy of a run, or any other model, in formats that other tools load."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gemsmith.recipes.commands.options import PlaceArgument
from gemsmith.recipes.run.console import captured, own_output, quieten


def export(
    place: PlaceArgument,
    stage: Annotated[
        str | None, typer.Argument(help="Stage to export. Default: the last finished stage with a policy.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Output folder; must be new or empty.")] = Path("export"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="transformers (default), adapter or gguf. Can be repeated."),
    ] = None,
    gguf: Annotated[
        str | None, typer.Option("--gguf", help="Type of the matrices in a GGUF file: f16 (default), q8_0 or q4_0.")
    ] = None,
) -> None:
    """Export a policy to formats that other tools load.

    Each format is read back and compared with the policy; the command fails if they differ.
    """
    from gemsmith.recipes.commands.actions.policy_export import export_policy
    from gemsmith.recipes.run.view import LineView

    quieten()
    with own_output() as file:
        view = LineView(file)
        with captured(Path(os.devnull)):
            export_policy(place, stage, to, view, formats or [], gguf)
    print(f"export: {to}")
