"""Run a recipe from Python, and open the folder of a run."""

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
    """Run a recipe; finished stages are skipped and interrupted ones continue.

    Progress is printed to `sys.stdout`. The trainers' output goes to `console.log` in each stage's folder.

    Args:
        recipe: path of a recipe, name of a shipped recipe such as "quickstart", or a recipe as a dict. Relative paths
            in a dict are looked up in the working folder.
        out: the run's folder, created if it is missing. Default: `runs/NAME` in the working folder, with the recipe's
            name.
        set: values for fields of the recipe by their dotted names, such as {"stages.sft.steps": 10}. The values are
            Python objects, not YAML text.
        only: id or ids of the stages to run. Default: all stages.
        fresh: delete earlier results of these stages and start them again.
        verbose: print the trainers' output to standard output instead of `console.log`.

    Returns:
        The run, with its stages, metrics, scores, policies and report.

    Raises:
        UserError: the recipe or an argument is invalid; one line for each fault.
        RunError: a stage failed. Call again to continue where it stopped; `open_run(out)` opens the results so far.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP stopped the run; the message says where the next call continues. A
            training stops at the end of its step and saves, a second signal stops it at once.
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
    """Open the folder of an earlier run, made from Python or by `gemsmith run`; it may be unfinished.

    Raises:
        UserError: the folder does not contain a run.
    """
    return Run(Path(folder).expanduser().absolute())


def _check_only(only: Sequence[str], pipeline: "Pipeline", folder: Path, fresh: bool) -> None:
    """Check that the chosen stages exist, and that their input stages are finished or chosen too."""
    from gemsmith.recipes.run.record import read_stage

    pipeline = pipeline.for_run(folder)
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
