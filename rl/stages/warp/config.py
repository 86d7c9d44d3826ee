"""Configuration of WARP. Imports no torch."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

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

    If `inner` is `bond`, the EMA anchor is BOND's anchor: one copy, updated at `inner.anchor_rate`. If `inner` is
    `reinforce`, the EMA anchor is the reference of the KL penalty.
    """

    entry: ClassVar[str] = "gemsmith.rl.stages.warp.stage:run"
    version: ClassVar[int] = 3  # the order of the prompts does not depend on the number of processes
    produces: ClassVar[OutputKind] = "policy"
    keeps_line: ClassVar[bool] = True
    results: ClassVar[tuple[str, ...]] = ("output", "line.json", "start", "iteration-*/merged")

    kind: Literal["warp"]
    policy: PolicyConfig | None = Field(None, description="Initial policy. Not set: the recipe's `policy`.")
    runs: int = Field(2, ge=1, description="M, runs merged in each iteration (paper: 2).")
    iterations: int = Field(1, ge=1, description="I, rounds of train and merge (paper: up to 5).")
    liti: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Interpolation rate from an iteration's start to its merge; the result starts the next "
        "iteration (paper: 0.3).",
    )
    output_rate: float = Field(
        1.0,
        ge=0,
        description="Point of the final LITI line to save as the stage's policy: 0 is the start, 1 the last merge.",
    )
    group: Literal["layer", "tensor", "model"] = Field(
        "layer", description="Group of weights that share one SLERP angle (paper: layer)."
    )
    merge: Literal["slerp", "lerp"] = Field(
        "slerp",
        description="How the runs of an iteration are merged. slerp: spherical interpolation, which keeps the norm of "
        "the task vector (paper). lerp: plain average, the paper's baseline, which shortens it if runs differ.",
    )
    front: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=list,
        description="Points of the final line, in increasing order, whose reward and KL are measured at the end "
        "(paper: [0, 0.1, 0.3, 0.5, 0.8, 1]). Empty: no measurement. The saved policy does not depend on it.",
    )
    front_prompts: int = Field(
        256,
        ge=2,
        description="Largest number of held-out prompts of `inner.data`; one completion each per point of `front`.",
    )
    inner: AnyAlgorithm = Field(description="The algorithm of each run, with its data, rewards and training settings.")
    vary: list[RunChange] = Field(
        default_factory=list,
        description="Fields of `inner` that each run of an iteration overrides, such as [{}, {learning_rate: 1e-4}]. "
        "With fewer entries than runs, the list repeats.",
    )
    iteration_steps: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list,
        description="Steps per run in each iteration (paper: 9000, 7000, 7000, 5000, 5000). Empty: `inner.steps`.",
    )

    def run_config(self, iteration: int, number: int) -> RolloutConfig:
        """Return the algorithm and settings of one run; `iteration` and `number` count from 0."""
        given = given_by(self.vary[number % len(self.vary)]) if self.vary else {}
        if self.iteration_steps:
            given["steps"] = self.iteration_steps[iteration]
        return changed(self.inner, given) if given else self.inner

    @property
    def run_configs(self) -> list[RolloutConfig]:
        """Configurations of all runs, iteration by iteration."""
        return [self.run_config(iteration, run) for iteration in range(self.iterations) for run in range(self.runs)]

    parallel: int = Field(
        1,
        ge=1,
        description="Runs of an iteration trained at the same time, each in a worker process with its share of the "
        "threads. Only for a single process without DeepSpeed.",
    )

    def parallel_fault(self, processes: int, *, deepspeed: bool) -> str | None:
        """Return why `parallel` is not supported here, as a sentence; None if it is supported or 1."""
        return parallel_fault(self.parallel, "run", processes, deepspeed=deepspeed)

    @field_validator("front")
    @classmethod
    def _front_rises(cls, front: list[float]) -> list[float]:
        if any(later <= earlier for earlier, later in pairwise(front)):
            raise ValueError(f"found the rates {front}, expected increasing order without repeats")
        return front

    @model_validator(mode="after")
    def _changes_fit(self) -> "WarpStage":
        if len(self.vary) > self.runs:
            raise ValueError(
                f"vary has {len(self.vary)} entries, but runs is {self.runs}, so that some are never used: remove "
                "entries, or raise runs"
            )
        if self.iteration_steps and len(self.iteration_steps) != self.iterations:
            raise ValueError(
                f"iteration_steps has {len(self.iteration_steps)} entries, but iterations is {self.iterations}: "
                "give one entry per iteration"
            )
        for number, change in enumerate(self.vary):
            if self.iteration_steps and getattr(change, "steps", None) is not None:
                raise ValueError(f"vary.{number}.steps and iteration_steps both set the steps of a run: remove one")
            try:
                changed(self.inner, given_by(change))
            except ValueError as error:
                raise ValueError(f"vary.{number}: {error}") from error
        return self

    @model_validator(mode="after")
    def _front_is_of_one_turn(self) -> "WarpStage":
        if self.front and self.inner.most_turns > 1:
            turns = self.inner.most_turns
            raise ValueError(f"`front` supports single turns only, but inner.turns is {turns}: remove `front`")
        return self

    @model_validator(mode="after")
    def _runs_fit_in_warp(self) -> "WarpStage":
        for run in self.run_configs:
            if fault := run.warp_fault:
                raise ValueError(fault)
        return self

    def changed_results(self) -> dict[str, Any]:
        """Return what the code changed for any of the runs; entries of `vary` may differ from `inner`."""
        return {name: value for run in self.run_configs for name, value in run.changed_results().items()}

    def trainings(self) -> Sequence[StageTraining]:
        """Return the training settings of `inner`."""
        return (StageTraining(self.inner, "inner"),)

    def scorings(self) -> Sequence[Scoring]:
        """Return the data and rewards of `inner`."""
        return (self.inner.scoring("inner"),)

    def check(self, context: CheckContext) -> None:
        """Report unsupported parallel runs, and the problems that each run's algorithm finds."""
        if fault := self.parallel_fault(1, deepspeed=context.engine.deepspeed is not None):
            context.add(("parallel",), fault)
        for run in self.run_configs:
            run.check_algorithm(context)

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of all runs, trained one after another."""
        steps = sum(run.steps for run in self.run_configs)
        return forecast_training(self.inner, self.start, context, repeats=steps / self.inner.steps)
