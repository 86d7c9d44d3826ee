"""What every stage is configured with, and what it is given when it runs."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field

from gemsmith.contracts.strict import StrictModel

OutputKind = Literal["policy", "reward_model", "targets", "data", "scores", "export"]


class StageConfig(StrictModel):
    """Fields that every stage of a recipe has; a kind of stage is a subclass with a literal `kind`.

    `entry` names the function `run(config, stage)` that does the work, as "package.module:function", so that reading a
    recipe imports none of it. `version` counts changes of the code that change results; it is part of the identity.
    `keeps_line` says that other points of a line than the output can be asked for (`liti`).
    """

    entry: ClassVar[str]
    version: ClassVar[int] = 1
    produces: ClassVar[OutputKind]
    keeps_line: ClassVar[bool] = False

    id: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", description="Name of the stage, unique in the recipe.")


class ProgressSink(Protocol):
    """Where a running stage tells how far it is: a live terminal view, plain lines, or nothing."""

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """`done` of `total` units are finished; `shown` holds the few metrics that matter for this stage."""

    def say(self, message: str) -> None:
        """One line for the person who watches."""


class Silence:
    """A sink that tells nobody."""

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""


@dataclass
class Stage:
    """What a stage's `run(config, stage)` is given: where to work, what it builds on, and whom to tell.

    `folder` is the stage's own and survives interruption: checkpoints live there. `output` is what later stages read;
    the stage is finished when `run` returns. `inputs` maps the id of each earlier stage it refers to onto that stage's
    `output` folder. `data` and `rewards` are the recipe's named sections, `root` the folder of the recipe file, against
    which relative paths resolve. `engine` is the recipe's training engine.
    """

    id: str
    folder: Path
    seed: int
    root: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    rewards: Mapping[str, Any] = field(default_factory=dict)
    engine: Any = None
    sink: ProgressSink = field(default_factory=Silence)

    @property
    def output(self) -> Path:
        """Folder of what later stages read."""
        return self.folder / "output"

    def log(self, metrics: Mapping[str, float], step: int, **where: Any) -> None:
        """Append one line to the stage's `metrics.jsonl`; `where` tells runs or members of one stage apart."""
        row = {"step": step, **where, **{name: float(value) for name, value in metrics.items()}}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def progress(self, done: int, total: int, unit: str = "step", **shown: float) -> None:
        """Tell the watcher how far the stage is."""
        self.sink.progress(done, total, unit, shown)

    def say(self, message: str) -> None:
        """Tell the watcher one line."""
        self.sink.say(message)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it, whatever is killed when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
