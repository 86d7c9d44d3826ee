"""`gemsmith run`: run a recipe in one or several processes."""

from typing import Annotated

import typer

from gemsmith.recipes.commands.options import OutOption, RecipeArgument, SetOption, default_out

OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Run only this stage. Can be repeated.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Number of training processes: one per GPU, or sharing the CPU cores."),
]


def run(
    recipe: RecipeArgument,
    out: OutOption = None,
    only: OnlyOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete earlier results of the chosen stages and start them again.")
    ] = False,
    sets: SetOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the trainers' output to the terminal.")] = False,
    processes: ProcessesOption = None,
) -> None:
    """Run a recipe, or continue an interrupted run.

    Finished stages are skipped; interrupted stages continue from their last checkpoint.
    """
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
        raise KeyboardInterrupt(str(error) or "interrupted; the same command continues") from error
    if rank() == 0:
        for node in pipeline.nodes:
            if (output := folder / pipeline.folder(node) / "output").joinpath("export.json").exists():
                print(f"exported: {output}")
        print(f"run: {folder}" + (f"\nreport: {report}" if report else ""))


def _split(names: list[str] | None) -> list[str]:
    """Return the stages of `--only`, which can be repeated and can hold several separated by commas."""
    return [part.strip() for name in names or [] for part in name.split(",") if part.strip()]
