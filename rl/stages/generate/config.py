"""Configuration of answers that a policy writes for others to learn from. Imports no torch."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, Scoring, StageForecast
from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.policy.config import PolicyConfig, SamplerConfig, SamplingConfig
from gemsmith.policy.forecast import PROMPTS, forecast_sampling
from gemsmith.policy.origins import inherited_context


class GenerateStage(StageConfig):
    """Answers of a policy to the training prompts of a data section, the best of several by the recipe's rewards.

    A data section `{source: generated, from: ID}` hands them to other stages.
    """

    entry: ClassVar[str] = "gemsmith.rl.stages.generate.stage:run"
    produces: ClassVar[OutputKind] = "data"

    kind: Literal["generate"]
    policy: PolicyConfig | None = Field(None, description="Who answers, the teacher; none: the recipe's policy.")
    data: str = Field(description="Name of a data section; each of its training prompts is asked, none held out.")
    prompts: int | None = Field(None, ge=1, description="Ask at most this many prompts; the seed fixes which.")
    samples: int = Field(8, ge=1, description="Completions drawn for each prompt, the n of best-of-n.")
    keep: int = Field(1, ge=1, description="Most answers to keep for each prompt, the best first.")
    rewards: list[str] = Field(
        default_factory=list,
        description="Names of the recipe's rewards, whose weighted sum says which are best; of what shapes learning, "
        "only `tasks` has an effect here: `normalise`, `clip` and `gate` have none. None: keep all that end.",
    )
    at_least: float | None = Field(
        None, allow_inf_nan=False, description="Keep no answer whose weighted sum is below this; none: no bound."
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How completions are drawn.")
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="What draws them.")
    shown: int = Field(8, ge=0, description="Prompts whose completions are shown in the report.")

    @model_validator(mode="after")
    def _a_choice_needs_rewards(self) -> "GenerateStage":
        if self.keep > self.samples:
            raise ValueError(f"keep {self.keep} is more than the {self.samples} samples of a prompt: lower it")
        if not self.rewards and self.at_least is not None:
            raise ValueError("at_least is a bound on rewards, and there are none: name some in `rewards`")
        if not self.rewards and self.keep < self.samples:
            raise ValueError(
                f"samples is {self.samples} and keep {self.keep}, and no rewards say which are the best: name some in "
                "`rewards`, or make the two equal"
            )
        return self

    def scorings(self) -> Sequence[Scoring]:
        """Return what the rewards score, where there are any."""
        return (Scoring(self.data, tuple(self.rewards), prompts=self.prompts),) if self.rewards else ()

    def check(self, context: CheckContext) -> None:
        """Report completions that leave no room for a prompt."""
        length = inherited_context(self, context.stages, context.root)
        if length is not None and self.sampling.max_tokens >= length:
            expected = f"expected less than the policy's context of {length} tokens, to leave room for a prompt"
            context.add(("sampling", "max_tokens"), f"found {self.sampling.max_tokens}, {expected}")

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of one policy that answers."""
        return forecast_sampling(
            context.size_of(self.start) if self.start is not None else None,
            context,
            models=1,
            prompts=self.prompts or PROMPTS,
            samples=self.samples,
            sampling=self.sampling,
            rewards=tuple(self.rewards),
        )
