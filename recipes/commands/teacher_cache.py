"""`gemsmith teacher-cache`: write the targets of a stage's teacher to a folder of the user's choice."""

from pathlib import Path
from typing import Annotated

import typer

from gemsmith.recipes.commands.options import default_out


def teacher_cache(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    stage: Annotated[str, typer.Argument(help="A stage with a teacher, or of kind teacher_cache.")],
    out: Annotated[Path, typer.Option("--out", help="The store's folder; an unfinished store is gone on with.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="The run's folder, for teachers that are stages of it.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as in seed=1.")
    ] = None,
) -> None:
    """Write the targets of a stage's teacher, once for any number of students."""
    from gemsmith.recipes.commands.actions.teacher_targets import write_teacher_cache
    from gemsmith.recipes.pipeline.pipeline import open_recipe

    pipeline = open_recipe(recipe, sets or [])
    try:
        write_teacher_cache(pipeline, stage, run or default_out(pipeline.name), out)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; the same command continues where it stopped") from error
    print(f"store: {out}")
