"""Writes a policy of a run, or any other, into a folder of one's own as the export stage does."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import ProgressSink, Silence, Stage
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.export.config import ExportFormat, ExportStage, GgufType
from gemsmith.export.lineage import Lineage, read_lineage
from gemsmith.policy.config import PolicyConfig
from gemsmith.recipes.run.trained import find_policy


def export_policy(
    place: Path,
    stage: str | None,
    to: Path,
    sink: ProgressSink | None = None,
    formats: Sequence[str] = (),
    gguf: str | None = None,
) -> None:
    """Export the policy of a stage in the run `place`, or the model folder `place`, to the folder `to`.

    Args:
        place: a run's folder, or a model's.
        stage: of the run; none: the last one with a policy.
        to: the folder to write.
        sink: whom to tell.
        formats: as in a recipe; none: transformers, or gguf where that is said how.
        gguf: what a GGUF file stores matrices as; none: f16.

    A policy that its run started from weights which can be found must differ from them.

    Raises:
        UserError: there is no such policy, a format is unknown or cannot hold it, something stands at `to`, or nothing
            can be written there.
        RunError: the export is not what it should be.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: found something there already, expected a new or an empty folder")
    fields = _fields(formats, gguf)
    trained = find_policy(place, stage)
    from gemsmith.export.export_stage import run

    lineage = read_lineage(trained.folder)
    inputs = {"policy": trained.folder}
    if trained.base is not None:
        inputs["base"] = trained.base
    config = ExportStage(
        id="export",
        kind="export",
        policy=PolicyConfig.model_validate({"from": "policy"}),
        base=PolicyConfig.model_validate({"from": "base"}) if trained.base else _outside_base(lineage),
        **fields,
    )
    part = to.with_name(to.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--to {to}: nothing can be written there ({error.strerror}): name another folder") from error
    try:
        work = Stage(
            id="export", folder=part, seed=lineage.seed, root=Path.cwd(), inputs=inputs, sink=sink or Silence()
        )
        run(config, work)
        if to.exists():
            to.rmdir()
        work.output.replace(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _outside_base(lineage: Lineage) -> PolicyConfig | None:
    """Return the weights from outside the run that the policy's stage started from, where they can be found here.

    A name that only the recipe's folder or the hub resolves is left out: an export never downloads a base.
    """
    start = lineage.start
    if start is None or start.model is None or (start.model != "tiny" and not Path(start.model).exists()):
        return None
    return start


def _fields(formats: Sequence[str], gguf: str | None) -> dict[str, Any]:
    """The options of the command as the stage's fields.

    Raises:
        UserError: one of them is unknown, or does not go with the others.
    """
    asked = {"--format": (formats, get_args(ExportFormat)), "--gguf": ([gguf] if gguf else [], get_args(GgufType))}
    for option, (found, known) in asked.items():
        for name in found:
            if name not in known:
                raise UserError(f"{option} {name}: expected {listed(known)}{did_you_mean(name, known)}")
    if formats and gguf and "gguf" not in formats:
        raise UserError(f"--gguf {gguf} is for --format gguf, and the formats are {listed(formats)}: add it")
    chosen = list(dict.fromkeys(formats)) or (["gguf"] if gguf else [])
    return ({"formats": chosen} if chosen else {}) | ({"gguf": gguf} if gguf else {})
