"""Contexts and answers for what a stage kind declares before it runs: faults, trainings, scorings and costs.

The recipes package asks these questions of every stage and knows no kind by name, so that it checks and plans a new
kind of stage like the built-in ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gemsmith.contracts.stage import StageConfig

Keys = tuple[str | int, ...]
"""Path of a field in a recipe, such as ("stages", 2, "sampling", "max_tokens")."""


@dataclass(frozen=True)
class CheckContext:
    """The rest of the recipe, and where to report a fault, for `StageConfig.check`.

    Attributes:
        id: id of the stage that is checked.
        index: its position in the recipe.
        stages: every stage by id, with the recipe's policy filled in where a stage names none.
        data: data sections by name.
        rewards: rewards by name.
        engine: the recipe's training engine (`policy.config.EngineConfig`).
        root: folder of the recipe, against which relative paths resolve.
        report: function that takes the path of a field in the recipe and one sentence.
    """

    id: str
    index: int
    stages: Mapping[str, "StageConfig"]
    data: Mapping[str, Any]
    rewards: Mapping[str, Any]
    engine: Any
    root: Path
    report: Callable[[Keys, str], None]

    def add(self, field: Keys, text: str) -> None:
        """Report a fault in a field of this stage, such as ("sampling", "max_tokens"); () is the stage itself."""
        self.report(("stages", self.index, *field), text)

    def add_to_recipe(self, field: Keys, text: str) -> None:
        """Report a fault in a field outside this stage, such as ("rewards", "brief", "gate")."""
        self.report(field, text)


@dataclass(frozen=True)
class StageTraining:
    """Training settings of a stage (`policy.config.TrainingConfig`) and the field that holds them; "" is the stage."""

    config: Any
    field: str = ""


@dataclass(frozen=True)
class Scoring:
    """Rewards that a stage applies to the rows of a data section.

    Attributes:
        data: name of the section.
        needed: names of rewards of which at least one must apply to each row.
        others: names of rewards that are only logged.
        prompts: number of rows that are used; None: all.
        learns: True for training rows, False for held-out rows.
        field: field of the stage that names the rewards' holder; "" is the stage itself.
    """

    data: str
    needed: tuple[str, ...]
    others: tuple[str, ...] = ()
    prompts: int | None = None
    learns: bool = True
    field: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All rewards that are applied."""
        return (*self.needed, *self.others)


class ModelSize(Protocol):
    """Size of a model, as far as a plan needs it."""

    @property
    def parameters(self) -> int:
        """Number of weights; tied weights count once."""

    @property
    def vocabulary(self) -> int:
        """Number of entries of the vocabulary."""

    def adapters(self, rank: int) -> int:
        """Return the number of weights of low-rank adapters of this rank on every linear layer."""


@dataclass(frozen=True)
class Throughput:
    """Floating-point operations per second of the whole machine, while training and while sampling."""

    training: float
    sampling: float


@dataclass(frozen=True)
class ForecastContext:
    """The rest of the recipe and the machine, for `StageConfig.forecast`.

    Attributes:
        stages: every stage by id.
        rewards: rewards by name.
        sizes: sizes of the models that earlier stages write, by the stage's id; None where unknown.
        size_of: function that returns the size of the model that a `policy.config.PolicyConfig` names; None if unknown.
        throughput: None if a GPU of unknown speed would run the stage.
    """

    stages: Mapping[str, "StageConfig"]
    rewards: Mapping[str, Any]
    sizes: Mapping[str, ModelSize | None]
    size_of: Callable[[Any], ModelSize | None]
    throughput: Throughput | None

    def judge_parameters(self, rewards: tuple[str, ...]) -> int:
        """Return the number of weights of all reward models that these rewards hold in memory."""
        return sum(self.rewards[name].model_parameters(self) for name in rewards)


@dataclass(frozen=True)
class StageForecast:
    """Estimated needs of a stage; None where they are not known.

    Attributes:
        size: size of the policy that the stage works on.
        trained: number of trained weights; None if the stage trains none.
        memory: bytes, over all processes.
        seconds: time on this machine, within a factor of a few.
    """

    size: ModelSize | None = None
    trained: int | None = None
    memory: float | None = None
    seconds: float | None = None
