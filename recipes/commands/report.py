"""`gemsmith report`: rewrite the report of a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(folder: Annotated[Path, typer.Argument(help="Folder of the run.")]) -> None:
    """Rewrite the HTML report of a run, finished or not."""
    from gemsmith.recipes.run.record import read_run

    read_run(folder)
    from gemsmith.recipes.report import write_report

    print(f"report: {write_report(folder)}")
