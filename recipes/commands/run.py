"""`gemsmith run`: run a recipe in this process, or in several."""

from typing import Annotated

import typer

from gemsmith.recipes.commands.options import OutOption, RecipeArgument, SetOption, default_out

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", help="Run only this stage; may be given several times.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Train in so many processes: one a GPU, or sharing the cores."),
]


def run(
    recipe: RecipeArgument,
    out: OutOption = None,
    only: OnlyOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the stages have done before.")] = False,
    sets: SetOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Let trainers print to the terminal.")] = False,
    processes: ProcessesOption = None,
) -> None:
    """Run a recipe, or what is left of it; stages that are finished are skipped, interrupted ones continue."""
    from gemsmith.contracts.processes import count, rank
    from gemsmith.recipes.pipeline.pipeline import open_recipe
    from gemsmith.recipes.run.launch import check_count, check_shares, die_with_launcher, launch_run
    from gemsmith.recipes.run.runner import chosen_nodes, run_pipeline

    die_with_launcher()
    if processes is not None:
        check_count(processes)
    pipeline = open_recipe(recipe, sets or [])
    folder = out or default_out(pipeline.name)
    names = _split(only)
    check_shares(pipeline, chosen_nodes(pipeline, names), processes or count())
    try:
        if processes is not None and processes > 1:
            options = ["--verbose"] if verbose else []
            options += [f"--only={name}" for name in names] + [f"--set={text}" for text in sets or []]
            launch_run(pipeline, folder, [recipe, *options], processes, names, fresh=fresh)
            return
        report = run_pipeline(pipeline, folder, only=names, fresh=fresh, verbose=verbose)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; the same command continues where it stopped") from error
    if rank() == 0:
        print(f"run: {folder}" + (f"\nreport: {report}" if report else ""))


def _split(names: list[str] | None) -> list[str]:
    """`--only a,b --only c` as a, b and c."""
    return [part.strip() for name in names or [] for part in name.split(",") if part.strip()]
