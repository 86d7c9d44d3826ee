"""Write the targets of a stage's teacher to a folder that the user chooses."""

import os
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.policy.origins import origin_of
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.checksums import check_whole
from gemsmith.recipes.run.console import captured, own_output, quieten
from gemsmith.recipes.run.record import read_stage
from gemsmith.recipes.run.view import LineView
from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage
from gemsmith.rl.teachers.config import ShareConfig, TaughtConfig

ROWS = 8  # rows per forward pass of the teacher if the stage does not set `micro_batch`


def write_teacher_cache(pipeline: Pipeline, stage: str, run: Path, out: Path) -> None:
    """Write the targets that a stage learns from, or continue an unfinished store.

    Args:
        pipeline: the checked recipe.
        stage: id of a stage with a teacher, or of a stage of kind teacher_cache.
        run: folder of the recipe's run; needed for teachers that are stages of the recipe.
        out: folder of the store.

    Raises:
        UserError: the stage does not exist or has no teacher, or the teacher's stage is not finished.
        RunError: the store cannot be written.
    """
    pipeline = pipeline.for_run(run)
    node = _node(pipeline, stage)
    config = _cache_of(pipeline, node)
    for name in (share.teacher.from_ for share in config.shares):
        if name is not None and read_stage(run / pipeline.folder(_node(pipeline, name))).status != "finished":
            raise UserError(
                f"teacher-cache {stage}: its teacher is stage {name}, which is not finished in {run}; run it first "
                f"(`gemsmith run RECIPE --only {name}`), or give the run's folder with --run"
            )
        if name is not None:
            check_whole([run / pipeline.folder(_node(pipeline, name)) / "output"])
    from gemsmith.recipes.run.stages import make_stage
    from gemsmith.rl.stages.teacher_cache.stage import write_targets

    quieten()
    with own_output() as file:
        view = LineView(file)
        view.show_status(stage, "running", 0.0)
        with captured(Path(os.devnull)):
            write_targets(config, make_stage(pipeline, node, run, view), out)


def _node(pipeline: Pipeline, stage: str) -> Node:
    known = {node.id: node for node in pipeline.nodes}
    if stage not in known:
        taught = [node.id for node in pipeline.nodes if isinstance(node.config, TaughtConfig)]
        hint = did_you_mean(stage, known)
        raise UserError(
            f"teacher-cache {stage}: found no such stage, expected a stage with a teacher: {listed(taught)}{hint}"
        )
    return known[stage]


def _cache_of(pipeline: Pipeline, node: Node) -> TeacherCacheStage:
    """Return the teacher_cache stage that would write the targets of `node`'s teacher."""
    if isinstance(node.config, TeacherCacheStage):
        return node.config
    taught = node.config
    if not isinstance(taught, TaughtConfig) or not taught.shares:
        raise UserError(
            f"teacher-cache {node.id}: found kind {node.kind}, which has no teacher; choose a stage that has"
        )
    shares = []
    for share in taught.shares:
        asked = share.teacher.model_copy(update={"store": None})
        if asked.weights is None and asked.server is None:
            raise UserError(
                f"teacher-cache {node.id}: its teacher names only a store ({share.teacher.store}); also name the model "
                "whose targets to write, with `model` or `from`"
            )
        source = next((other for other in pipeline.nodes if other.id == asked.from_), None)
        if source is not None and source.config.produces == "targets":
            raise UserError(
                f"teacher-cache {node.id}: stage {source.id} already writes its targets; name {source.id} instead, or "
                "run the recipe"
            )
        shares.append(ShareConfig(teacher=asked, tasks=share.tasks, weight=share.weight))
    return TeacherCacheStage(
        id=node.id,
        kind="teacher_cache",
        policy=origin_of(node.config, {other.id: other.config for other in pipeline.nodes}),
        teachers=shares,
        data=node.data[0],
        sampled_logits=taught.sampled_logits,
        mode=taught.mode,
        temperature=taught.temperature,
        max_length=getattr(taught, "max_length", 1024),
        batch=getattr(taught, "micro_batch", None) or ROWS,
    )
