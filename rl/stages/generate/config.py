"""Configuration of the generate stage. Imports no torch."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, Scoring, StageForecast
from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.policy.config import PolicyConfig, SamplerConfig, SamplingConfig
from gemsmith.policy.forecast import PROMPTS, forecast_sampling
from gemsmith.policy.origins import inherited_context


class GenerateStage(StageConfig):
    """Sampling of a policy's answers to training prompts, optionally keeping the best by the recipe's rewards.

    Other stages read the answers through a data section `{source: generated, from: ID}`.
    """

    entry: ClassVar[str] = "gemsmith.rl.stages.generate.stage:run"
    produces: ClassVar[OutputKind] = "data"

    kind: Literal["generate"]
    policy: PolicyConfig | None = Field(
        None, description="Policy that answers the prompts. Not set: the recipe's `policy`."
    )
    data: str = Field(
        description="Name of a data section; the policy answers its training prompts, not the held-out ones."
    )
    prompts: int | None = Field(
        None, ge=1, description="Largest number of prompts to answer, chosen by the seed. Not set: all."
    )
    samples: int = Field(8, ge=1, description="Completions sampled per prompt, the n of best-of-n.")
    keep: int = Field(1, ge=1, description="Largest number of answers to keep per prompt, best first.")
    rewards: list[str] = Field(
        default_factory=list,
        description="Names of the recipe's rewards; answers are ranked by their weighted sum. A reward's `tasks` "
        "applies here; its `normalise`, `clip` and `gate` do not. Empty: keep every finished answer.",
    )
    at_least: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Smallest weighted sum of rewards of an answer to keep. Not set: no limit.",
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How completions are sampled.")
    sampler: SamplerConfig = Field(
        default_factory=SamplerConfig, description="Which sampler generates the completions."
    )
    shown: int = Field(8, ge=0, description="Prompts whose completions are shown in the report.")

    @model_validator(mode="after")
    def _a_choice_needs_rewards(self) -> "GenerateStage":
        if self.keep > self.samples:
            raise ValueError(
                f"keep is {self.keep}, expected at most samples, which is {self.samples}: lower keep, or raise samples"
            )
        if not self.rewards and self.at_least is not None:
            raise ValueError("at_least is a limit on rewards, but `rewards` is empty: list rewards, or remove at_least")
        if not self.rewards and self.keep < self.samples:
            raise ValueError(
                f"samples is {self.samples} and keep is {self.keep}, but `rewards` is empty, so that answers cannot be "
                "ranked: list rewards, or set keep to samples"
            )
        return self

    def scorings(self) -> Sequence[Scoring]:
        """Return the data and rewards that this stage combines; empty without rewards."""
        return (Scoring(self.data, tuple(self.rewards), prompts=self.prompts),) if self.rewards else ()

    def check(self, context: CheckContext) -> None:
        """Report a `max_tokens` that leaves no tokens of the context for a prompt."""
        length = inherited_context(self, context.stages, context.root)
        if length is not None and self.sampling.max_tokens >= length:
            expected = f"expected less than the policy's context of {length} tokens, so that a prompt fits too"
            context.add(("sampling", "max_tokens"), f"found {self.sampling.max_tokens}, {expected}")

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of sampling all completions from one policy."""
        return forecast_sampling(
            context.size_of(self.start) if self.start is not None else None,
            context,
            models=1,
            prompts=self.prompts or PROMPTS,
            samples=self.samples,
            sampling=self.sampling,
            rewards=tuple(self.rewards),
        )
