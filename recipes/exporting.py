"""`gemsmith export`: writes a policy of a run, or any other, into a folder of one's own as the export stage does."""

import shutil
from pathlib import Path

from contracts.errors import UserError
from contracts.stage import ProgressSink, Silence, Stage
from export.config import ExportStage
from policy.config import PolicyConfig
from recipes.record import read_run
from recipes.trained import find_policy


def export_policy(place: Path, stage: str | None, to: Path, sink: ProgressSink | None = None) -> None:
    """Export the policy of a stage in the run `place`, or the model folder `place`, to the folder `to`.

    Raises:
        UserError: there is no such policy, or something stands at `to`.
        RunError: the export is not what it should be.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: found something there already, expected a new or an empty folder")
    trained = find_policy(place, stage)
    from export.export_stage import run

    inputs = {"policy": trained.folder}
    if trained.base is not None:
        inputs["base"] = trained.base
    config = ExportStage(
        id="export",
        kind="export",
        policy=PolicyConfig.model_validate({"from": "policy"}),
        base=PolicyConfig.model_validate({"from": "base"}) if trained.base else None,
    )
    seed = read_run(place)["seed"] if trained.stage else 0
    part = to.with_name(to.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        work = Stage(id="export", folder=part, seed=seed, root=Path.cwd(), inputs=inputs, sink=sink or Silence())
        run(config, work)
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.exists():
            to.rmdir()
        work.output.replace(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
