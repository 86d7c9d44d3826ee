"""`gemsmith validate`: check a recipe without running it, and optionally the reference answers of its data."""

import sys
from typing import Annotated

import typer

from gemsmith.recipes.commands.options import RecipeArgument, SetOption


def validate(
    recipe: RecipeArgument,
    sets: SetOption = None,
    gold: Annotated[
        bool, typer.Option("--gold", help="Also check that the verifiers accept the data's reference answers.")
    ] = False,
) -> None:
    """Check a recipe and its files without running it."""
    from gemsmith.recipes.pipeline.pipeline import open_recipe

    pipeline = open_recipe(recipe, sets or [])
    number = len(pipeline.nodes)
    ids = ", ".join(node.id for node in pipeline.nodes)
    print(f"{recipe}: valid, {number} stage{'' if number == 1 else 's'}: {ids}")
    for node in pipeline.nodes:
        for remark in pipeline.remarks.get(node.id, ()):
            print(f"  {node.id}: {remark}")
    if gold:
        from gemsmith.recipes.commands.actions.gold_check import check_gold, report_gold

        for line in report_gold(check_gold(pipeline, lambda line: print(line, file=sys.stderr))):
            print(line)
