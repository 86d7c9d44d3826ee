"""Runs a recipe from Python, and opens the folder of a run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.recipes.api.opening import RecipeLike, open_pipeline, run_folder
from gemsmith.recipes.api.results import Run
from gemsmith.recipes.api.silence import quiet_libraries

if TYPE_CHECKING:
    from gemsmith.recipes.pipeline.pipeline import Pipeline


def run(
    recipe: RecipeLike,
    out: str | os.PathLike[str] | None = None,
    *,
    set: Mapping[str, Any] | None = None,
    only: str | Sequence[str] | None = None,
    fresh: bool = False,
    verbose: bool = False,
) -> Run:
    """Run a recipe, or what is left of it: finished stages are skipped, interrupted ones continue.

    Progress goes to `sys.stdout`. What trainers print goes to `console.log` in each stage's folder.

    Args:
        recipe: the path of a recipe, the name of a shipped recipe such as "quickstart", or a recipe as a dict, whose
            relative paths resolve against the working folder.
        out: the run's folder, made when it is missing. Default: `runs/` and the recipe's name, in the working folder.
        set: values for fields of the recipe by their dotted names, such as {"stages.sft.steps": 10}. They are Python
            values, not YAML text.
        only: the id of the stage to run, or several. Default: all stages.
        fresh: forget what these stages have done before, and start them again.
        verbose: let trainers print to standard output instead of to `console.log`.

    Returns:
        The run, with its stages, metrics, scores, policies and report.

    Raises:
        UserError: the recipe or an argument is at fault; one line for each fault.
        RunError: a stage failed. Call again to continue where it stopped; `open_run(out)` shows what there is.
        KeyboardInterrupt: you pressed Ctrl-C. Call again to continue.
    """
    from gemsmith.contracts.processes import count
    from gemsmith.recipes.run.launch import check_shares
    from gemsmith.recipes.run.runner import chosen_nodes, run_pipeline

    pipeline = open_pipeline(recipe, set)
    ids = [only] if isinstance(only, str) else list(only or [])
    folder = run_folder(out, pipeline.name)
    _check_only(ids, pipeline, folder, fresh)
    check_shares(pipeline, chosen_nodes(pipeline, ids), count())
    with quiet_libraries():
        run_pipeline(pipeline, folder, only=ids, fresh=fresh, verbose=verbose)
    return Run(folder)


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open the folder of a run that was made before, from Python or by the command; it may be unfinished.

    Raises:
        UserError: the folder holds no run.
    """
    return Run(Path(folder).expanduser().absolute())


def _check_only(only: Sequence[str], pipeline: "Pipeline", folder: Path, fresh: bool) -> None:
    """Check that the chosen stages are there, and that what they build on is finished or chosen too."""
    from gemsmith.recipes.run.record import read_stage

    finished = {node.id for node in pipeline.nodes if read_stage(folder / pipeline.folder(node)).status == "finished"}
    nodes = {node.id: node for node in pipeline.nodes}
    for name in only:
        if name not in nodes:
            raise UserError(f'only: found no stage "{name}", expected {listed(nodes)}{did_you_mean(name, nodes)}')
        if name in finished and not fresh:
            continue
        for origin in nodes[name].inputs:
            if origin not in finished and origin not in only:
                raise UserError(
                    f'only: stage "{name}" builds on "{origin}", which is not finished; add "{origin}" to `only`'
                )
