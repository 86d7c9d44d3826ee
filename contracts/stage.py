"""What every stage is configured with, and what it is given when it runs."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field

from gemsmith.contracts.planning import CheckContext, ForecastContext, Scoring, StageForecast, StageTraining
from gemsmith.contracts.strict import StrictModel

OutputKind = Literal["policy", "reward_model", "targets", "data", "scores", "export"]


class StageConfig(StrictModel):
    """Fields that every stage of a recipe has; a stage kind is a subclass with a literal `kind`.

    The methods answer what the recipe side asks of every stage. Their defaults suit a stage that trains nothing and
    scores nothing; `policy.training_stage.TrainingStage` has those of a stage that trains.

    Attributes:
        entry: "package.module:function" of `run(config, stage)`, which does the work; reading a recipe imports none.
        version: raised when a change of the code changes results; part of a stage's identity.
        produces: kind of output, which decides who may refer to the stage.
        keeps_line: True where a policy's `liti` may name other points than the output.
        shares_sequences: True where `engine.sequence_parallel` may be above 1.
    """

    entry: ClassVar[str]
    version: ClassVar[int] = 1
    produces: ClassVar[OutputKind]
    keeps_line: ClassVar[bool] = False
    shares_sequences: ClassVar[bool] = False

    id: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", description="Name of the stage, unique in the recipe.")
    kind: str = Field(description="Kind of the stage.")

    @property
    def start(self) -> Any:
        """The policy that the stage works on (`policy.config.PolicyConfig`); None where it has no such field."""
        return getattr(self, "policy", None)

    def with_policy(self, policy: Any) -> "StageConfig":
        """Return the stage with the recipe's policy where it has a field `policy` and names none."""
        if policy is None or "policy" not in type(self).model_fields or self.start is not None:
            return self
        return self.model_copy(update={"policy": policy})

    def with_inherited(self, stages: Mapping[str, "StageConfig"]) -> "StageConfig":
        """Return the stage with what it takes over from other stages, which have their policies; by default nothing."""
        return self

    def trainings(self) -> Sequence[StageTraining]:
        """Return the training settings of the stage; they are held against the policy's context and the engine."""
        return ()

    @property
    def runs_in_every_process(self) -> bool:
        """True where every process of `--processes` calls `run`; by default the first alone does, unless it trains."""
        return bool(self.trainings())

    def scorings(self) -> Sequence[Scoring]:
        """Return which rewards score which data, so that every row is known to have a reward."""
        return ()

    def check(self, context: CheckContext) -> None:
        """Report what is wrong with the stage's settings, beyond its fields' own types; nothing is loaded or run."""

    def check_files(self, root: Path) -> None:
        """Check files that the stage will read, just before a run begins; `root` is the recipe's folder.

        Raises:
            UserError: one of them cannot be used.
        """

    def process_faults(self, processes: int) -> Sequence[tuple[str, str]]:
        """Return why so many processes cannot train the stage, as pairs of a field ("": the stage) and a sentence."""
        return [("", fault) for training in self.trainings() if (fault := training.config.batch_fault(processes))]

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return what the stage will hold and take; by default only the size of its policy is known."""
        return StageForecast(None if self.start is None else context.size_of(self.start))


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

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of a stage with one training."""
        return self.folder / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """JSON lines that `log` writes; not there before its first call."""
        return self.folder / "metrics.jsonl"

    def log(self, metrics: Mapping[str, float], step: int, **where: Any) -> None:
        """Append one line to the stage's `metrics.jsonl`; `where` tells runs or members of one stage apart."""
        row = {"step": step, **where, **{name: float(value) for name, value in metrics.items()}}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.metrics_file.open("a") as file:
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
