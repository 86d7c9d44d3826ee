"""The records in a run's folder: the state of each stage and of the whole run, written atomically."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.reading import as_object, reading
from gemsmith.contracts.stage import write_atomically
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline

Status = Literal["to run", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class StageRecord:
    """The state of a stage: `seconds` counts all attempts, `started` is the time of the first one.

    `files` holds size and digest of every file that a finished stage wrote, by its path in the stage's folder; it is
    empty for a stage of an older version.
    """

    status: Status = "to run"
    started: str = ""
    seconds: float = 0.0
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_stage(folder: Path) -> StageRecord:
    """Read the record in a stage's folder.

    Call this with the run's lock held: a record with the status "running" then belongs to a process that was killed,
    and is returned as "interrupted".

    Raises:
        UserError: the record is damaged.
    """
    path = folder / "stage.json"
    if not path.is_file():
        return StageRecord()
    with reading(path, "the record of a stage", "put it back from a copy, or delete the folder to run the stage again"):
        content = as_object(json.loads(path.read_text(encoding="utf-8")), ("status", "started", "seconds"))
        record = _stage_record(content)
    if record.status == "finished" and not (folder / "output").is_dir():
        return StageRecord("to run", record.started, record.seconds)
    return record


def _stage_record(content: Mapping[str, Any]) -> StageRecord:
    """Return the record in the content of `stage.json`, after a check of every type: a wrong one would fail later."""
    status, seconds, files = content["status"], float(content["seconds"]), _files(content)
    if status not in get_args(Status):
        raise ValueError(f"its status is {str(status)[:40]!r}")
    if not isinstance(content["started"], str):
        raise ValueError("its time of starting is not a text")
    as_object(content.get("config", {}))
    return StageRecord("interrupted" if status == "running" else status, content["started"], seconds, files)


def recorded_files(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the files in a stage's record (`StageRecord.files`), which may lack everything else.

    Raises:
        UserError: the record is missing or damaged.
    """
    path = folder / "stage.json"
    with reading(path, "the record of a stage", "put it back from a copy, or delete the folder to run the stage again"):
        return _files(as_object(json.loads(path.read_text(encoding="utf-8"))))


def _files(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    files = as_object(content.get("files", {}))
    for name, entry in files.items():
        as_object(entry, ("bytes", "sha256"))
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"it names the file {name[:80]!r}, which is not in the stage's folder")
    return files


def write_stage(run: Path, pipeline: Pipeline, node: Node, record: StageRecord) -> None:
    """Write `stage.json`."""
    content = {
        "id": node.id,
        "kind": node.kind,
        "produces": node.config.produces,
        "identity": pipeline.identities[node.id],
        "status": record.status,
        "started": record.started,
        "seconds": round(record.seconds, 3),
        "inputs": {name: pipeline.identities[name] for name in node.inputs},
        "config": node.config.model_dump(mode="json", by_alias=True),
        "files": dict(record.files),
    }
    write_atomically(run / pipeline.folder(node) / "stage.json", json.dumps(content, indent=2) + "\n")


def write_run(run: Path, pipeline: Pipeline, running: str | None = None) -> None:
    """Write `run.json` from the records of the stages; `running` is the id of the stage that is running now."""
    path = run / "run.json"
    started = now()
    with suppress(UserError):  # a damaged file is renewed here
        started = read_run(run)["started"]
    stages = []
    for node in pipeline.nodes:
        record = read_stage(run / pipeline.folder(node))
        stages.append(
            {
                "id": node.id,
                "kind": node.kind,
                "produces": node.config.produces,
                "folder": pipeline.folder(node),
                "status": "running" if node.id == running else record.status,
                "seconds": record.seconds,
                "inputs": list(node.inputs),
            }
        )
    content = {"name": pipeline.name, "seed": pipeline.seed, "started": started, "stages": stages}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_run(run: Path) -> dict[str, Any]:
    """Read `run.json`.

    Raises:
        UserError: the folder does not contain a run, or the file is damaged.
    """
    path = run / "run.json"
    if not path.is_file():
        raise UserError(f"{run}: found no run.json, expected the folder of a run (see `--out`)")
    with reading(path, "the record of a run", "put it back from a copy, or run the recipe again, which renews it"):
        content = as_object(json.loads(path.read_text(encoding="utf-8")), ("name", "stages"))
        content = as_object({"seed": 0, "started": "", **content})
        for stage in content["stages"]:
            as_object(stage, ("id", "kind", "folder", "status"))
            stage |= {"seconds": stage.get("seconds") or 0.0, "inputs": stage.get("inputs", [])}
            for name in ("id", "kind", "folder", "status"):
                if not isinstance(stage[name], str):
                    raise ValueError(f"the {name} of a stage is not a text")
            if not isinstance(stage["inputs"], list) or not isinstance(stage["seconds"], int | float):
                raise ValueError(f"the entry of stage {stage['id']} has another structure")
        return content


def forget(run: Path, ids: set[str]) -> None:
    """Delete all folders of the given stages, also those of other settings."""
    for folder in (run / "stages").glob("*-????????"):
        if folder.name[:-9] in ids:
            shutil.rmtree(folder)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a lock on the run's folder, so that no second run can use it.

    The lock belongs to this process only (POSIX `lockf`): a worker process that outlives it does not keep the lock.

    Raises:
        UserError: another process holds the lock.
        RunError: the folder cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("a+")
    except OSError as error:
        raise RunError(f"{run}: the run's folder cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"{run}: another run (process {holder}) is at work in this folder; wait for it, or set another --out"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def now() -> str:
    """Return the present time (UTC, ISO 8601) for a record."""
    return datetime.now(UTC).isoformat(timespec="seconds")
