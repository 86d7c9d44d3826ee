"""A worker process: any process of a run except the first.

Workers train together with the first process, which alone writes the records and runs the stages that do not train.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.processes import rank
from gemsmith.contracts.stopping import stop_request
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.console import captured
from gemsmith.recipes.run.failure import as_run_error
from gemsmith.recipes.run.record import read_stage
from gemsmith.recipes.run.stages import make_stage, run_stage

POLL_SECONDS = 0.5


def run_as_worker(pipeline: Pipeline, run: Path, nodes: Sequence[Node], fresh: bool) -> None:
    """Take part in every training stage, and wait until the first process has finished each stage.

    This process's output goes to `console-RANK.log`, next to the first process's `console.log`. The first process
    alone runs the other stages. If the first process fails, the launcher ends the others.

    Args:
        pipeline: the checked recipe.
        run: the run's folder.
        nodes: the stages to run, in order.
        fresh: not supported in several processes, because it would delete folders that other processes use.

    Raises:
        UserError: `fresh` is set, or a stage raised it.
        RunError: a stage failed in this process.
    """
    if fresh:
        raise UserError("--fresh: not supported with several processes; delete the run's folder instead")
    with stop_request.watched():
        for node in nodes:
            folder = run / pipeline.folder(node)
            if read_stage(folder).status == "finished":
                continue
            if node.config.runs_in_every_process:
                _train_along(pipeline, node, run)
            while read_stage(folder).status != "finished":
                time.sleep(POLL_SECONDS)


def _train_along(pipeline: Pipeline, node: Node, run: Path) -> None:
    stage = make_stage(pipeline, node, run)
    try:
        with captured(stage.folder / f"console-{rank()}.log"):
            run_stage(node, stage)
    except (UserError, RunError) as error:
        message = str(error).removeprefix(f"stage {node.id}: ")
        raise type(error)(f"stage {node.id}, process {rank() + 1}: {message}") from error
    except Exception as error:
        raise as_run_error(error, stage.folder, f"stage {node.id}, process {rank() + 1}") from error
