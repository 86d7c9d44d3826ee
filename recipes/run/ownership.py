"""The recipe that a run's folder belongs to: another one must not replace its records silently."""

from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.recipes.run.record import read_run

RECORDS = ("run.json", "recipe.yaml", "environment.json", "report.html")


def claim(run: Path, pipeline: Pipeline, *, fresh: bool = False) -> None:
    """Check that a run's folder belongs to a recipe, or to none; with `fresh`, remove the records of another recipe.

    A recipe is known by its name: an edited recipe of the same name continues the run if it has a stage in common, by
    id and kind. A recipe of another name continues it only if every stage that the run has begun is one of its own,
    with unchanged settings: then the recipe was renamed or extended.

    Raises:
        UserError: the folder holds the run of another recipe, and `fresh` is not set.
    """
    if not (run / "run.json").exists():
        return
    try:
        other = _other(run, pipeline)
    except UserError:  # run.json is damaged
        if not fresh:
            raise
        other = "an unknown recipe"
    if other is None:
        return
    if not fresh:
        ids = ", ".join(node.id for node in pipeline.nodes)
        raise UserError(
            f"{run}: found the run of {other}, and this recipe is {pipeline.name} with the stages {ids}: choose "
            "another folder with --out, or add --fresh to start this recipe here"
        )
    for name in RECORDS:
        (run / name).unlink(missing_ok=True)


def _other(run: Path, pipeline: Pipeline) -> str | None:
    """Return the name and stages of the recipe that the run belongs to; None if it is the pipeline's."""
    content = read_run(run)
    begun = [stage for stage in content["stages"] if stage["status"] != "to run"]
    if not begun:
        return None
    if content["name"] == pipeline.name:
        own = {(node.id, node.kind) for node in pipeline.nodes}
        same = any((stage["id"], stage["kind"]) in own for stage in content["stages"])
    else:
        folders = {pipeline.folder(node) for node in pipeline.nodes}
        same = all(stage["folder"] in folders for stage in begun)
    if same:
        return None
    return f"recipe {content['name']} with the stages {', '.join(stage['id'] for stage in content['stages'])}"
