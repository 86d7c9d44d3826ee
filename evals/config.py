"""Configuration of evaluation. Imports no torch."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from gemsmith.contracts.planning import CheckContext, ForecastContext, Scoring, StageForecast
from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.contracts.strict import StrictModel
from gemsmith.policy.config import PolicyConfig, SamplerConfig, SamplingConfig
from gemsmith.policy.forecast import PROMPTS, forecast_sampling


class Expectation(StrictModel):
    """A gain in sampled pass rate that the recipe expects; the stage fails without it."""

    better: str = Field(description="Id of the stage that should have gained.")
    than: str = Field(description="Id of the stage that it is compared with.")
    by: float = Field(0.0, ge=0, le=100, description="Least gain, in percentage points of sampled pass rate.")
    task: str | None = Field(None, description="Task of the prompts to compare. Default: all prompts.")
    apart: bool = Field(
        True, description="Whether the 95% interval of the difference, paired by prompt, must be above 0."
    )


class EvaluateStage(StageConfig):
    """Pass rate, rewards and KL of several policies on the held-out prompts of a data section, with intervals."""

    entry: ClassVar[str] = "gemsmith.evals.evaluate_stage:run"
    version: ClassVar[int] = 3  # scores by task
    produces: ClassVar[OutputKind] = "scores"

    kind: Literal["evaluate"]
    policies: list[str] = Field(
        min_length=1,
        description="Ids of the stages whose policies are compared, in order; `aligned@0.5` is the point at 0.5 of "
        "the line of `aligned`, a stage of kind warp.",
    )
    initial: str | None = Field(
        None, description="Stage whose policy the KL is measured from. Default: the first of `policies`."
    )
    data: str = Field(description="Name of a data section; its held-out prompts are used.")
    prompts: int | None = Field(None, ge=1, description="Use at most this many prompts.")
    samples: int = Field(8, ge=1, description="Sampled completions for each prompt; one greedy one is added.")
    rewards: list[str] = Field(
        min_length=1,
        description="Names of the recipe's rewards to report, each as it comes, and their weighted sum; of what shapes "
        "learning, only `tasks` has an effect here: `normalise`, `clip` and `gate` have none.",
    )
    passes: str | list[str] | None = Field(
        None,
        min_length=1,
        description="Reward whose value 1 counts as a pass, or several, of which the first that applies to a "
        "completion decides; none: the ground-truth rewards in `rewards`, in their order.",
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How completions are drawn.")
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="What draws them.")
    expect: list[Expectation] = Field(default_factory=list, description="Gains without which the stage fails.")
    shown: int = Field(8, ge=0, description="Prompts whose completions are kept for the report.")

    def changed_results(self) -> dict[str, Any]:
        """Mark sampling at another temperature than 1: the KL is computed at that temperature."""
        return {} if self.sampling.plain else {"scored_at": "sampling temperature"}

    @property
    def named_passes(self) -> list[str]:
        """Return the rewards that `passes` names."""
        return [self.passes] if isinstance(self.passes, str) else list(self.passes or [])

    def scorings(self) -> Sequence[Scoring]:
        """Return the rewards that are scored, on held-out rows."""
        return (Scoring(self.data, tuple(self.rewards), prompts=self.prompts, learns=False),)

    def check(self, context: CheckContext) -> None:
        """Report that no reward decides what passes, or that it is not among the stage's rewards."""
        passes = self.named_passes
        if not passes and not any(context.rewards[name].ground_truth for name in self.rewards):
            expected = "expected `passes` to name the reward whose 1 is a pass"
            context.add((), f"found no ground-truth reward among its rewards, {expected}")
        for passing in (name for name in passes if name not in self.rewards):
            context.add(("passes",), f'found "{passing}", expected one of the stage\'s own rewards')

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of all policies, with one greedy completion per prompt besides the sampled ones."""
        named = [PolicyConfig.named(name).from_ for name in self.policies]
        return forecast_sampling(
            next((size for name in named if name and (size := context.sizes.get(name)) is not None), None),
            context,
            models=2,
            prompts=(self.prompts or PROMPTS) * len(self.policies),
            samples=self.samples + 1,
            sampling=self.sampling,
            rewards=tuple(self.rewards),
        )
