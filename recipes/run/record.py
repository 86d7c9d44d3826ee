"""The records in a run's folder: the state of each stage and of the whole run, written atomically."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import write_atomically
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.pipeline.pipeline import Pipeline

Status = Literal["to run", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class StageRecord:
    """The state of a stage: `seconds` counts all attempts, `started` is the time of the first one."""

    status: Status = "to run"
    started: str = ""
    seconds: float = 0.0


def read_stage(folder: Path) -> StageRecord:
    """Read the record in a stage's folder.

    Call this with the run's lock held: a record with the status "running" then belongs to a process that was killed,
    and is returned as "interrupted".
    """
    try:
        record = json.loads((folder / "stage.json").read_text())
    except (OSError, ValueError):
        return StageRecord()
    status = record["status"]
    if status == "running":
        status = "interrupted"
    if status == "finished" and not (folder / "output").is_dir():
        status = "to run"
    return StageRecord(status, record["started"], record["seconds"])


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
    }
    write_atomically(run / pipeline.folder(node) / "stage.json", json.dumps(content, indent=2) + "\n")


def write_run(run: Path, pipeline: Pipeline, running: str | None = None) -> None:
    """Write `run.json` from the records of the stages; `running` is the id of the stage that is running now."""
    path = run / "run.json"
    try:
        started = json.loads(path.read_text())["started"]
    except (OSError, ValueError, KeyError):
        started = now()
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
        UserError: the folder does not contain a run.
    """
    try:
        content: dict[str, Any] = json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: found no readable run.json, expected the folder of a run (see `--out`)") from error
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
