"""`gemsmith validate`: check a recipe without running it, on request with the true answers of its data."""

import sys
from typing import Annotated

import typer

from gemsmith.recipes.commands.options import RecipeArgument, SetOption


def validate(
    recipe: RecipeArgument,
    sets: SetOption = None,
    gold: Annotated[
        bool, typer.Option("--gold", help="Also put every true answer of the data through its verifier.")
    ] = False,
) -> None:
    """Check a recipe, its stage graph, its reward functions' source and its files, without running anything."""
    from gemsmith.recipes.pipeline.pipeline import open_recipe

    pipeline = open_recipe(recipe, sets or [])
    print(f"{recipe}: good, {len(pipeline.nodes)} stages: {', '.join(node.id for node in pipeline.nodes)}")
    if gold:
        from gemsmith.recipes.commands.actions.gold_check import check_gold, report_gold

        for line in report_gold(check_gold(pipeline, lambda line: print(line, file=sys.stderr))):
            print(line)
