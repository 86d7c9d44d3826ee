"""Export a policy of a run, or any other model, to a folder that the user chooses, as the export stage does."""

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

    If the weights that the policy was trained from can be found, the exported policy must differ from them.

    Args:
        place: folder of a run or of a model.
        stage: id of a stage of the run; None chooses the last finished stage with a policy.
        to: folder to write; must be new or empty.
        sink: receives the progress.
        formats: formats as in a recipe; empty means transformers, or gguf if `gguf` is set.
        gguf: type of the matrices in a GGUF file; None means f16.

    Raises:
        UserError: the policy does not exist, a format is unknown or cannot hold it, `to` is not empty, or `to` cannot
            be written.
        RunError: the exported policy differs from the one in `place`, or equals its base.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: exists and is not an empty folder; name a new or an empty folder")
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
    # Write to a folder beside `to`, and rename it at the end: an export that fails leaves nothing at `to`.
    part = to.with_name(to.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--to {to}: cannot be written ({error.strerror}); name another folder") from error
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
    """Return the weights outside the run that the policy was trained from, or None if they are not found here.

    Names that resolve only in the recipe's folder or on the hub give None: an export never downloads a base.
    """
    start = lineage.start
    if start is None or start.model is None or (start.model != "tiny" and not Path(start.model).exists()):
        return None
    return start


def _fields(formats: Sequence[str], gguf: str | None) -> dict[str, Any]:
    """Return the command's options as fields of the export stage.

    Raises:
        UserError: an option's value is unknown, or --gguf is given without the format gguf.
    """
    asked = {"--format": (formats, get_args(ExportFormat)), "--gguf": ([gguf] if gguf else [], get_args(GgufType))}
    for option, (found, known) in asked.items():
        for name in found:
            if name not in known:
                raise UserError(f"{option} {name}: expected {listed(known)}{did_you_mean(name, known)}")
    if formats and gguf and "gguf" not in formats:
        raise UserError(
            f"--gguf {gguf}: found the formats {listed(formats)}, but --gguf needs the format gguf; add --format gguf"
        )
    chosen = list(dict.fromkeys(formats)) or (["gguf"] if gguf else [])
    return ({"formats": chosen} if chosen else {}) | ({"gguf": gguf} if gguf else {})
