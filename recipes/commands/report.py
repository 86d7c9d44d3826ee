"""`gemsmith report`: write the report of a run again."""

from pathlib import Path
from typing import Annotated

import typer


def report(folder: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Write the report of a run again, finished or not."""
    from gemsmith.recipes.run.record import read_run

    read_run(folder)
    from gemsmith.recipes.report import write_report

    print(f"report: {write_report(folder)}")
