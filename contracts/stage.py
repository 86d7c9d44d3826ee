"""Base class of stage configurations, and the object that a running stage receives."""

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

    The recipes package calls the methods to check and plan a stage. Their defaults suit a stage that trains nothing and
    scores nothing; `policy.training_stage.TrainingStage` has those of a stage that trains.

    Attributes:
        entry: "package.module:function" of `run(config, stage)`, which does the work. Reading a recipe does not import
            it.
        version: number to raise when a change of the code changes results; part of a stage's identity.
        produces: kind of output, which decides which stages may refer to this one.
        keeps_line: True if a policy's `liti` may name other points than the output.
        results: patterns of the files and folders in the stage's folder that later stages read; their checksums are
            recorded when the stage has finished.
        shares_sequences: True if `engine.sequence_parallel` may be above 1.
    """

    entry: ClassVar[str]
    version: ClassVar[int] = 1
    produces: ClassVar[OutputKind]
    keeps_line: ClassVar[bool] = False
    results: ClassVar[tuple[str, ...]] = ("output",)
    shares_sequences: ClassVar[bool] = False

    id: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=100, description="Name of the stage, unique in the recipe."
    )
    kind: str = Field(description="Kind of the stage.")

    @property
    def start(self) -> Any:
        """Return the policy that the stage works on (`policy.config.PolicyConfig`); None without such a field."""
        return getattr(self, "policy", None)

    def with_policy(self, policy: Any) -> "StageConfig":
        """Return the stage with the recipe's policy, if it has a field `policy` that is not set."""
        if policy is None or "policy" not in type(self).model_fields or self.start is not None:
            return self
        return self.model_copy(update={"policy": policy})

    def with_inherited(self, stages: Mapping[str, "StageConfig"]) -> "StageConfig":
        """Return the stage with the settings that it inherits from other stages. Default: unchanged."""
        return self

    def trainings(self) -> Sequence[StageTraining]:
        """Return the training settings of the stage, to be checked against the policy's context and the engine."""
        return ()

    @property
    def runs_in_every_process(self) -> bool:
        """Return True if every process of `--processes` calls `run`. Default: only if the stage trains."""
        return bool(self.trainings())

    def scorings(self) -> Sequence[Scoring]:
        """Return which rewards score which data, so that a row without a reward is found before the run."""
        return ()

    def check(self, context: CheckContext) -> None:
        """Report what is wrong with the stage's settings, beyond its fields' own types; nothing is loaded or run."""

    def remarks(self, context: CheckContext) -> Sequence[str]:
        """Return what `gemsmith validate` prints about the stage beside its being valid; called after `check`."""
        return ()

    def check_files(self, root: Path) -> None:
        """Check files that the stage will read, just before a run begins; `root` is the recipe's folder.

        Raises:
            UserError: one of them cannot be used.
        """

    def process_faults(self, processes: int) -> Sequence[tuple[str, str]]:
        """Return why that many processes cannot train the stage, as pairs of a field ("": the stage) and a sentence."""
        return [("", fault) for training in self.trainings() if (fault := training.config.batch_fault(processes))]

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the estimated needs of the stage. Default: only the size of its policy."""
        return StageForecast(None if self.start is None else context.size_of(self.start))


class ProgressSink(Protocol):
    """Receiver of a running stage's progress: a live terminal view, plain lines, or nothing."""

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Report that `done` of `total` units are finished; `shown` holds the few most useful metrics of the stage."""

    def say(self, message: str) -> None:
        """Print one line for the user."""


class Silence:
    """A sink that discards everything."""

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Discard the progress."""

    def say(self, message: str) -> None:
        """Discard the line."""


@dataclass
class Stage:
    """Folders, inputs and outputs of a running stage, passed to its `run(config, stage)`.

    `folder` is the stage's own and survives interruption; checkpoints live there. Later stages read `output`; the stage
    is finished when `run` returns. `inputs` maps the id of each earlier stage it refers to onto that stage's `output`
    folder. `data` and `rewards` are the recipe's named sections, `root` is the folder of the recipe file, against which
    relative paths resolve. `engine` is the recipe's training engine.
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
        """Return the folder that later stages read."""
        return self.folder / "output"

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the checkpoints of a stage with one training."""
        return self.folder / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """Return the path of the JSON lines that `log` writes; the file does not exist before the first call."""
        return self.folder / "metrics.jsonl"

    def log(self, metrics: Mapping[str, float], step: int, **where: Any) -> None:
        """Append one line to the stage's `metrics.jsonl`; `where` distinguishes runs or members of one stage."""
        row = {"step": step, **where, **{name: float(value) for name, value in metrics.items()}}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def progress(self, done: int, total: int, unit: str = "step", **shown: float) -> None:
        """Report the stage's progress."""
        self.sink.progress(done, total, unit, shown)

    def say(self, message: str) -> None:
        """Print one line for the user."""
        self.sink.say(message)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new content, and never part of it, even after a kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
