"""Configuration of WARP. Imports no torch."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, Scoring, StageForecast, StageTraining
from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.policy.config import PolicyConfig, parallel_fault
from gemsmith.policy.forecast import forecast_training
from gemsmith.rl.algorithms.config import ALGORITHMS, AnyAlgorithm
from gemsmith.rl.algorithms.rollout_config import RolloutConfig
from gemsmith.rl.stages.warp.run_overrides import changed, changes_of, given_by

if TYPE_CHECKING:
    from gemsmith.contracts.strict import StrictModel as RunChange
else:
    RunChange = changes_of("RunChange", __name__, *ALGORITHMS)


class WarpStage(StageConfig):
    """Weight-averaged rewarded policies: EMA anchor, SLERP of runs, LITI towards the start (Rame et al. 2024).

    With `bond` inside, of either form, BOND's anchor is the EMA anchor: one copy, one rate (`inner.anchor_rate`). With
    `reinforce` inside, the anchor is what the KL is taken to.
    """

    entry: ClassVar[str] = "gemsmith.rl.stages.warp.stage:run"
    version: ClassVar[int] = 3  # the order of the prompts does not depend on the number of processes
    produces: ClassVar[OutputKind] = "policy"
    keeps_line: ClassVar[bool] = True

    kind: Literal["warp"]
    policy: PolicyConfig | None = Field(None, description="Where to start; none: the recipe's policy.")
    runs: int = Field(2, ge=1, description="M, runs merged in each iteration (paper: 2).")
    iterations: int = Field(1, ge=1, description="I, rounds of train and merge (paper: up to 5).")
    liti: float = Field(
        0.3, ge=0, le=1, description="Rate of the step from an iteration's start to its merge (paper: 0.3)."
    )
    output_rate: float = Field(
        1.0,
        ge=0,
        description="Point of the final LITI line that becomes the stage's policy: 0 the start, 1 the last merge.",
    )
    group: Literal["layer", "tensor", "model"] = Field(
        "layer", description="What shares one SLERP angle (paper: layer)."
    )
    merge: Literal["slerp", "lerp"] = Field(
        "slerp",
        description="How the runs of an iteration become one. slerp: along the sphere, which keeps the length of the "
        "step (paper). lerp: their plain average, the paper's baseline, which shortens it where runs differ.",
    )
    front: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=list,
        description="Points of the final line whose reward and KL are measured at the end, rising; empty: none "
        "(paper: [0, 0.1, 0.3, 0.5, 0.8, 1]). It changes no weights.",
    )
    front_prompts: int = Field(
        256, ge=2, description="Held-out prompts of `inner.data`, at most, that each point of `front` answers once."
    )
    inner: AnyAlgorithm = Field(description="The algorithm of each run, with its data, rewards and training settings.")
    vary: list[RunChange] = Field(
        default_factory=list,
        description="What the runs of an iteration change of `inner`, in turn, such as [{}, {learning_rate: 1e-4}]; "
        "fewer than runs begin again.",
    )
    iteration_steps: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list,
        description="`inner.steps` of each iteration (paper: 9000, 7000, 7000, 5000, 5000); empty: as `inner` says.",
    )

    def run_config(self, iteration: int, number: int) -> RolloutConfig:
        """The algorithm and settings of one run, counted from 0."""
        given = given_by(self.vary[number % len(self.vary)]) if self.vary else {}
        if self.iteration_steps:
            given["steps"] = self.iteration_steps[iteration]
        return changed(self.inner, given) if given else self.inner

    @property
    def run_configs(self) -> list[RolloutConfig]:
        """Those of every run of every iteration, in their order."""
        return [self.run_config(iteration, run) for iteration in range(self.iterations) for run in range(self.runs)]

    parallel: int = Field(
        1,
        ge=1,
        description="Runs of an iteration trained at once, each in a process of its own with its share of the threads; "
        "for one process in plain torch.",
    )

    def parallel_fault(self, processes: int, *, deepspeed: bool) -> str | None:
        """Why runs cannot be trained at once here, as a sentence; None where they can, or need not."""
        return parallel_fault(self.parallel, "run", processes, deepspeed=deepspeed)

    @field_validator("front")
    @classmethod
    def _front_rises(cls, front: list[float]) -> list[float]:
        if any(later <= earlier for earlier, later in pairwise(front)):
            raise ValueError(f"the rates {front} do not rise: give each once, the lowest first")
        return front

    @model_validator(mode="after")
    def _changes_fit(self) -> "WarpStage":
        if len(self.vary) > self.runs:
            raise ValueError(f"vary has {len(self.vary)} entries and runs is {self.runs}: the last is never taken")
        if self.iteration_steps and len(self.iteration_steps) != self.iterations:
            raise ValueError(
                f"iteration_steps has {len(self.iteration_steps)} entries and iterations is {self.iterations}: "
                "give one for each"
            )
        for number, change in enumerate(self.vary):
            if self.iteration_steps and getattr(change, "steps", None) is not None:
                raise ValueError(f"vary.{number}.steps and iteration_steps both say how long a run is: remove one")
            try:
                changed(self.inner, given_by(change))
            except ValueError as error:
                raise ValueError(f"vary.{number}: {error}") from error
        return self

    @model_validator(mode="after")
    def _front_is_of_one_turn(self) -> "WarpStage":
        if self.front and self.inner.most_turns > 1:
            turns = self.inner.most_turns
            raise ValueError(f"`front` is measured on single turns, and inner.turns is {turns}: remove `front`")
        return self

    @model_validator(mode="after")
    def _runs_fit_in_warp(self) -> "WarpStage":
        for run in self.run_configs:
            if fault := run.warp_fault:
                raise ValueError(fault)
        return self

    def trainings(self) -> Sequence[StageTraining]:
        """Return the settings of the runs as `inner` gives them."""
        return (StageTraining(self.inner, "inner"),)

    def scorings(self) -> Sequence[Scoring]:
        """Return what the runs' rewards score."""
        return (self.inner.scoring("inner"),)

    def check(self, context: CheckContext) -> None:
        """Report runs at once that the engine does not allow, and what each run's algorithm finds wrong."""
        if fault := self.parallel_fault(1, deepspeed=context.engine.deepspeed is not None):
            context.add(("parallel",), fault)
        for run in self.run_configs:
            run.check_algorithm(context)

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of all runs, one after the other."""
        steps = sum(run.steps for run in self.run_configs)
        return forecast_training(self.inner, self.start, context, repeats=steps / self.inner.steps)
