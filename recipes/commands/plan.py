"""`gemsmith plan`: the forecast of a run as a table."""

from gemsmith.recipes.commands.options import OutOption, RecipeArgument, SetOption, default_out, wide_console


def plan(recipe: RecipeArgument, out: OutOption = None, sets: SetOption = None) -> None:
    """Estimate the size, memory and time of each stage."""
    from gemsmith.recipes.pipeline.pipeline import open_recipe
    from gemsmith.recipes.plan.plan import exempt, forecast, plan_table, summary

    pipeline = open_recipe(recipe, sets or [])
    lines = forecast(pipeline, out or default_out(pipeline.name))
    console = wide_console()
    console.print(plan_table(lines))
    console.print(summary(lines), highlight=False)
    if exception := exempt(pipeline):
        console.print(exception, highlight=False)
