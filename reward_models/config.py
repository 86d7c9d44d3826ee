"""Configuration of reward-model training. Imports no torch."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, StageForecast
from gemsmith.contracts.stage import OutputKind
from gemsmith.contracts.suggestions import listed
from gemsmith.policy.config import KeepingConfig, PolicyConfig, parallel_fault
from gemsmith.policy.forecast import forecast_training
from gemsmith.policy.training_stage import TrainingStage


class WarmStage(TrainingStage):
    """Weight-averaged reward models: a probed head, M diverse Bradley-Terry members, their mean (Rame et al. 2024)."""

    entry: ClassVar[str] = "gemsmith.reward_models.warm:run"
    version: ClassVar[int] = 3  # the ridge of the shared head is chosen by what predicts left-out pairs
    produces: ClassVar[OutputKind] = "reward_model"

    kind: Literal["warm"]
    policy: PolicyConfig | None = Field(None, description="The featuriser, usually the SFT policy; none: the recipe's.")
    data: str = Field(description="Name of a data section with preference pairs.")
    members: int = Field(3, ge=1, description="M, reward models trained (paper: up to 10).")
    keep: int | None = Field(None, ge=1, description="Average only the best by held-out accuracy; none: all.")
    learning_rates: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=list,
        description="Learning rates of the members in turn; empty: 0.5, 1 and 2 times learning_rate.",
    )
    dropouts: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.0, 0.05], min_length=1, description="Dropout of the members in turn (paper: 0.05 and 0.1)."
    )
    dropout_in: Literal["attention", "lora"] = Field(
        "attention",
        description="Where the members' dropouts apply: Gemma 3's only one, on attention weights, or the input of the "
        "adapters, in the place of lora.dropout.",
    )
    starts: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list,
        description="Steps of the stage of kind sft named in policy.from whose policies the members start from, in "
        "turn (Baklava; paper: two thirds, five sixths and all of it); it keeps them by keep_steps. Empty: its last. "
        "The head is probed on the last, once for all.",
    )
    parallel: int = Field(
        1,
        ge=1,
        description="Members trained at once, each in a process of its own with its part of the threads. It changes no "
        "result but by rounding.",
    )
    probe_steps: int = Field(
        50, ge=1, description="Batches of pairs on whose frozen features the shared head is fitted first."
    )
    holdout: float = Field(0.1, gt=0, lt=1, description="Share of the training prompts kept to measure the members.")
    holdout_limit: int = Field(500, ge=1, description="Most prompts kept to measure the members.")
    margin: str | None = Field(
        None,
        description="Column with how much better the chosen side is, in rewards: the members' loss becomes "
        "-log sigmoid(r+ - r- - margin) (Llama 2); none: 0.",
    )
    centre: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Weight of (r+ + r-)^2 in the members' loss, which draws rewards to mean 0 (TRL recommends 0.01).",
    )
    connectivity: bool = Field(
        False, description="Measure three models between the two best members too (the paper's Observation 1)."
    )

    @model_validator(mode="after")
    def _two_members_to_connect(self) -> "WarmStage":
        if self.connectivity and self.members < 2:
            raise ValueError("connectivity is measured between two members: set members to at least 2")
        return self

    @model_validator(mode="after")
    def _adapters_to_drop_out(self) -> "WarmStage":
        if self.dropout_in == "lora" and self.lora is None:
            raise ValueError(
                "dropout_in is lora, and the members have no adapters: set `lora`, or dropout_in: attention"
            )
        if self.dropout_in == "lora" and self.lora is not None and self.lora.dropout:
            raise ValueError("dropout_in is lora, where `dropouts` stands in for lora.dropout: remove lora.dropout")
        return self

    @property
    def kept_members(self) -> int:
        """Members that are averaged, or served together."""
        return min(self.keep or self.members, self.members)

    def check(self, context: CheckContext) -> None:
        """Report members at once that the engine does not allow, and starts at steps that nothing keeps."""
        if fault := self.parallel_fault(1, deepspeed=context.engine.deepspeed is not None):
            context.add(("parallel",), fault)
        if self.starts:
            self._check_starts(context)

    def _check_starts(self, context: CheckContext) -> None:
        source = context.stages.get((self.policy.from_ if self.policy is not None else None) or "")
        if not isinstance(source, KeepingConfig) or source.kind != "sft":
            found = "no stage" if source is None else f'"{source.id}", of another kind'
            expected = "expected the stage of kind sft that keeps these steps"
            context.add(("starts",), f"found {found} in policy.from, {expected}")
            return
        known = [*source.keep_steps, source.steps]
        for place, step in enumerate(self.starts):
            if step not in known:
                expected = f"expected a step that stage {source.id} keeps, {listed(map(str, known))}"
                context.add(("starts", place), f"found {step}, {expected}: name it in that stage's keep_steps")

    def process_faults(self, processes: int) -> Sequence[tuple[str, str]]:
        """Add that members cannot be trained at once in several processes."""
        crowd = self.parallel_fault(processes, deepspeed=False)
        return [*([("parallel", crowd)] if crowd else []), *super().process_faults(processes)]

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of the members, one after the other."""
        return forecast_training(self, self.start, context, repeats=self.members)

    def parallel_fault(self, processes: int, *, deepspeed: bool) -> str | None:
        """Why members cannot be trained at once here, as a sentence; None where they can, or need not."""
        return parallel_fault(self.parallel, "member", processes, deepspeed=deepspeed)
