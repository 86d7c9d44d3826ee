"""Configuration of what all algorithms on a policy's own samples share. Imports no torch."""

from typing import ClassVar

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, ModelSize, Scoring
from gemsmith.policy.config import SamplerConfig, SamplingConfig, TrainingConfig, check_follows_training
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.rl.rewards.compatibility import check_gates_of

K1 = "k1, sampled: mean over the policy's completions of log policy(y) - log {}(y), in nats a completion"


class RolloutConfig(TrainingConfig):
    """What every algorithm that learns from its own samples needs; `batch` counts prompts a step.

    `algorithm` names the class that turns rollouts into weighted sequences, as "package.module:Class".
    """

    algorithm: ClassVar[str]

    data: str = Field(description="Name of a data section with prompts.")
    rewards: list[str] = Field(min_length=1, description="Names of the recipe's rewards; their weighted sum is learnt.")
    control: list[str] = Field(
        default_factory=list,
        description="Rewards that are scored and logged beside these, and never learnt from: where one falls while the "
        "reward rises, the policy games it.",
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How completions are drawn.")
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="What draws them.")
    importance_cap: float | None = Field(
        None,
        gt=0,
        description="Weigh completions by trainer's over sampler's probability, at most this (usual: 2); none: do not.",
    )
    overlap: bool = Field(
        False,
        description="Draw the next step's completions while this step is rewarded and learnt from (vllm); they come "
        "from weights one step old, which importance_cap corrects for.",
    )

    @property
    def own_completions(self) -> int:
        """Completions of the policy itself for each prompt."""
        return 1

    @property
    def completions_per_prompt(self) -> int:
        """Completions sampled for each prompt in all, from the policy and from others."""
        return 1

    @property
    def passes_per_prompt(self) -> float:
        """Forward and backward passes of the policy over a completion, for each prompt."""
        return self.completions_per_prompt

    @property
    def overlaps(self) -> bool:
        """Whether completions are sampled from weights that are one step old."""
        return self.overlap

    @property
    def most_turns(self) -> int:
        """Completions that may follow one another for one prompt, each after word of the tests."""
        return 1

    @property
    def warns_of_ties(self) -> bool:
        """Whether the algorithm learns nothing where most completions of a prompt have equal rewards."""
        return False

    def estimators(self) -> dict[str, str]:
        """Return how each sampled metric of the algorithm's own is estimated, by its name; for reports."""
        return {}

    @property
    def warp_fault(self) -> str | None:
        """Why WARP cannot run the algorithm with these settings, as a sentence; None where it can."""
        return None

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Return the costs of the initial policy, the anchor, and the reward models that score completions."""
        learnt = context.judge_parameters(tuple(self.rewards))
        control = context.judge_parameters(tuple(self.control))
        return TrainingCosts(
            passes=self.passes_per_prompt,
            completions=self.completions_per_prompt,
            frozen=learnt + control,
            copied=2 * trained,
            scoring_flops=2.0 * (self.completions_per_prompt * learnt + self.own_completions * control),
        )

    def scoring(self, field: str = "") -> Scoring:
        """Return what the rewards score; `field` is the stage's field that holds the algorithm."""
        return Scoring(self.data, tuple(self.rewards), tuple(self.control), field=field)

    def check_algorithm(self, context: CheckContext) -> None:
        """Report what is wrong with the rewards, and with the settings beside the rest of the recipe."""
        check_gates_of(self.rewards, context)

    @property
    def steps_per_rollout(self) -> int:
        """Optimiser steps that learn from one rollout; by convention the field `updates`. They must divide `steps`."""
        return 1

    @model_validator(mode="after")
    def _rollouts_fill_the_steps(self) -> "RolloutConfig":
        if self.steps % self.steps_per_rollout:
            raise ValueError(
                f"updates {self.steps_per_rollout} does not divide steps {self.steps}: change the one or the other"
            )
        return self

    @model_validator(mode="after")
    def _follows_the_training(self) -> "RolloutConfig":
        check_follows_training(self.sampler)
        return self

    @model_validator(mode="after")
    def _control_is_not_learnt(self) -> "RolloutConfig":
        if both := [name for name in self.control if name in self.rewards]:
            raise ValueError(f"control names {both[0]}, which is among `rewards`: what is learnt from controls nothing")
        return self

    @model_validator(mode="after")
    def _can_overlap(self) -> "RolloutConfig":
        if self.overlap and self.sampler.backend != "vllm":
            raise ValueError("overlap needs a sampler beside the trainer: set sampler.backend to vllm")
        if self.overlap and self.sampler.sleep:
            raise ValueError("overlap draws while training, when sampler.sleep has given the memory back: remove one")
        if self.overlap and self.importance_cap is None:
            raise ValueError("overlap learns from completions of weights one step old: set importance_cap (usual: 2)")
        return self
