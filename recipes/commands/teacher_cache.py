"""`gemsmith teacher-cache`: write the targets of a stage's teacher to a folder that the user chooses."""

from pathlib import Path
from typing import Annotated

import typer

from gemsmith.recipes.commands.options import default_out


def teacher_cache(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or name of a shipped recipe.")],
    stage: Annotated[str, typer.Argument(help="Stage with a teacher, or of kind teacher_cache.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; an unfinished one is continued.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of the run, if the teacher is a stage of it. Default: runs/NAME."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a field, such as seed=1. Can be repeated."),
    ] = None,
) -> None:
    """Store a teacher's targets on disk for its students."""
    from gemsmith.recipes.commands.actions.teacher_targets import write_teacher_cache
    from gemsmith.recipes.pipeline.pipeline import open_recipe

    pipeline = open_recipe(recipe, sets or [])
    try:
        write_teacher_cache(pipeline, stage, run or default_out(pipeline.name), out)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; the same command continues after the shards that are written") from error
    print(f"store: {out}")
