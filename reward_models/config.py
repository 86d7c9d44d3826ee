"""Configuration of reward-model training. Imports no torch."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, StageForecast
from gemsmith.contracts.stage import OutputKind
from gemsmith.contracts.suggestions import listed
from gemsmith.policy.config import KeepingConfig, PolicyConfig, parallel_fault
from gemsmith.policy.forecast import forecast_training
from gemsmith.policy.training_stage import TrainingStage


class WarmStage(TrainingStage):
    """Stage that trains weight-averaged reward models (WARM, Rame et al. 2024).

    A head is fitted on frozen features, M diverse members are trained on the Bradley-Terry loss, and their weights are
    averaged.
    """

    entry: ClassVar[str] = "gemsmith.reward_models.warm:run"
    version: ClassVar[int] = 3  # the ridge of the shared head is chosen by what predicts left-out pairs
    produces: ClassVar[OutputKind] = "reward_model"
    results: ClassVar[tuple[str, ...]] = ("output", "members")

    kind: Literal["warm"]
    policy: PolicyConfig | None = Field(
        None, description="Initial policy of the members, usually the SFT policy; not set: the recipe's."
    )
    data: str = Field(description="Name of a data section with preference pairs.")
    members: int = Field(3, ge=1, description="Number of reward models to train, M (paper: up to 10).")
    keep: int | None = Field(
        None,
        ge=1,
        description="Number of members to average, best by accuracy on half of the held-out prompts; the other half is "
        "reported. Not set: all.",
    )
    learning_rates: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=list,
        description="Learning rates that the members use in turn; empty: 0.5, 1 and 2 times learning_rate.",
    )
    dropouts: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.0, 0.05], min_length=1, description="Dropout rates that the members use in turn (paper: 0.05 and 0.1)."
    )
    dropout_in: Literal["attention", "lora"] = Field(
        "attention",
        description="Place of the members' dropout. attention: on attention weights, the only dropout of Gemma 3. "
        "lora: on the input of the adapters, instead of lora.dropout.",
    )
    starts: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list,
        description="Steps of the sft stage in policy.from from which the members start, in turn (Baklava; paper: two "
        "thirds, five sixths and all of its steps); that stage must list them in keep_steps. Empty: its last step. The "
        "shared head is always fitted on the last step.",
    )
    parallel: int = Field(
        1,
        ge=1,
        description="Number of members trained at once, each in its own process with its share of the threads. Results "
        "differ by rounding only.",
    )
    probe_steps: int = Field(
        50, ge=1, description="Number of batches of pairs on whose frozen features the shared head is fitted."
    )
    holdout: float = Field(
        0.1, gt=0, lt=1, description="Share of the training prompts held out to evaluate the members."
    )
    holdout_limit: int = Field(500, ge=1, description="Maximum number of prompts held out to evaluate the members.")
    margin: str | None = Field(
        None,
        description="Column with the margin of each pair, in units of reward: the members' loss becomes "
        "-log sigmoid(r+ - r- - margin) (Llama 2); not set: margin 0.",
    )
    centre: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Weight of (r+ + r-)^2 in the members' loss, which moves the mean reward to 0 (TRL recommends "
        "0.01).",
    )
    connectivity: bool = Field(
        False, description="Also evaluate three interpolations of the two best members (the paper's Observation 1)."
    )

    @model_validator(mode="after")
    def _two_members_to_connect(self) -> "WarmStage":
        if self.connectivity and self.members < 2:
            raise ValueError(f"connectivity needs two members, but members is {self.members}: set members to 2 or more")
        return self

    @model_validator(mode="after")
    def _adapters_to_drop_out(self) -> "WarmStage":
        if self.dropout_in == "lora" and self.lora is None:
            raise ValueError(
                "dropout_in is lora, but the members have no adapters: set `lora`, or `dropout_in: attention`"
            )
        if self.dropout_in == "lora" and self.lora is not None and self.lora.dropout:
            raise ValueError("dropout_in is lora, so `dropouts` replaces lora.dropout: remove lora.dropout")
        return self

    @property
    def kept_members(self) -> int:
        """Return the number of members that are averaged, or served together."""
        return min(self.keep or self.members, self.members)

    @property
    def selects(self) -> bool:
        """Return True if members are chosen by their held-out accuracy."""
        return self.kept_members < self.members or self.connectivity

    def changed_results(self) -> dict[str, Any]:
        """Mark that members are selected on other held-out pairs than those that are reported."""
        return {"held_out": "one half selects, one half is reported"} if self.selects else {}

    def check(self, context: CheckContext) -> None:
        """Report `parallel` if the engine does not allow it, and `starts` at steps that no stage keeps."""
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
        """Also refuse `parallel` above 1 in a launch of several processes."""
        crowd = self.parallel_fault(processes, deepspeed=False)
        return [*([("parallel", crowd)] if crowd else []), *super().process_faults(processes)]

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast for training the members one after the other."""
        return forecast_training(self, self.start, context, repeats=self.members)

    def parallel_fault(self, processes: int, *, deepspeed: bool) -> str | None:
        """Return a message if `parallel` is above 1 and not possible with these processes or DeepSpeed, else None."""
        return parallel_fault(self.parallel, "member", processes, deepspeed=deepspeed)
