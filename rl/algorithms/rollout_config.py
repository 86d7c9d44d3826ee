"""Configuration shared by all algorithms that learn from a policy's own samples. Imports no torch."""

from typing import Any, ClassVar

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, ModelSize, Scoring
from gemsmith.policy.config import (
    SamplerConfig,
    SamplingConfig,
    TrainingConfig,
    average_rank,
    check_follows_training,
    check_untruncated,
)
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.rl.rewards.compatibility import check_gates_of

K1 = "k1, sampled: mean over the policy's completions of log policy(y) - log {}(y), in nats per completion"


class RolloutConfig(TrainingConfig):
    """Settings of an algorithm that learns from the policy's own samples; `batch` is the number of prompts per step.

    `algorithm` names the class that turns rollouts into weighted sequences, as "package.module:Class".
    """

    algorithm: ClassVar[str]

    data: str = Field(description="Name of a data section with prompts.")
    rewards: list[str] = Field(
        min_length=1, description="Names of the recipe's rewards; the policy learns from their weighted sum."
    )
    control: list[str] = Field(
        default_factory=list,
        description="Names of rewards that are scored and logged but not learned from. If one falls while the reward "
        "rises, the policy exploits the reward.",
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig,
        description="Settings of the sampling distribution. Log-probabilities are computed at its temperature; top_p "
        "and top_k are refused (WARP: temperature 0.9).",
    )
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="Engine that samples completions.")
    importance_cap: float | None = Field(
        None,
        gt=0,
        description="Upper bound of the importance ratio, the trainer's over the sampler's probability of a "
        "completion, by which completions are weighted (usual: 2); not set: no weighting.",
    )
    overlap: bool = Field(
        False,
        description="Sample the next step's completions while this step is rewarded and trained on (vllm only). They "
        "come from weights that are one step old, which `importance_cap` corrects for.",
    )

    @property
    def own_completions(self) -> int:
        """Return the number of completions per prompt that the policy samples."""
        return 1

    @property
    def completions_per_prompt(self) -> int:
        """Return the number of completions per prompt from the policy and all other models."""
        return 1

    @property
    def passes_per_prompt(self) -> float:
        """Return the number of forward and backward passes of the policy over a completion, per prompt."""
        return self.completions_per_prompt

    @property
    def overlaps(self) -> bool:
        """Return True if completions are sampled from weights that are one step old."""
        return self.overlap

    @property
    def most_turns(self) -> int:
        """Return the largest number of turns per prompt."""
        return 1

    @property
    def warns_of_ties(self) -> bool:
        """Return True if the algorithm gets no signal from prompts whose completions have equal rewards."""
        return False

    def estimators(self) -> dict[str, str]:
        """Return a description of the estimator of each of the algorithm's sampled metrics, by name, for reports."""
        return {}

    @property
    def averages_policy(self) -> bool:
        """Return True if the anchor is a moving average of the policy."""
        return False

    @property
    def averages_adapters(self) -> bool:
        """Return True if the anchor is a moving average of the products of adapters."""
        return self.lora is not None and self.averages_policy

    @property
    def warp_fault(self) -> str | None:
        """Return a message if WARP cannot run the algorithm with these settings, else None."""
        return None

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Add the costs of the initial policy, the anchor, and the reward models that score completions."""
        learnt = context.judge_parameters(tuple(self.rewards))
        control = context.judge_parameters(tuple(self.control))
        anchor = trained
        if self.lora is not None and self.averages_policy:
            anchor = trained * average_rank(self.lora.rank) // self.lora.rank
        return TrainingCosts(
            passes=self.passes_per_prompt,
            completions=self.completions_per_prompt,
            frozen=learnt + control,
            copied=trained + anchor,
            scoring_flops=2.0 * (self.completions_per_prompt * learnt + self.own_completions * control),
        )

    def scoring(self, field: str = "") -> Scoring:
        """Describe the data that the rewards score; `field` is the stage's field that holds the algorithm."""
        return Scoring(self.data, tuple(self.rewards), tuple(self.control), field=field)

    def check_algorithm(self, context: CheckContext) -> None:
        """Check the rewards and the settings against the rest of the recipe; add faults to `context`."""
        check_gates_of(self.rewards, context)

    @property
    def steps_per_rollout(self) -> int:
        """Return the number of optimiser steps per rollout (by convention the field `updates`); it divides `steps`."""
        return 1

    @model_validator(mode="after")
    def _rollouts_fill_the_steps(self) -> "RolloutConfig":
        if self.steps % self.steps_per_rollout:
            raise ValueError(
                f"updates {self.steps_per_rollout} does not divide steps {self.steps}: set steps to a multiple of it"
            )
        return self

    @model_validator(mode="after")
    def _samples_what_it_scores(self) -> "RolloutConfig":
        check_untruncated(self.sampling, "the algorithm")
        return self

    def changed_results(self) -> dict[str, Any]:
        """Mark training at another temperature than 1, and anchors that average the products of adapters."""
        scored = {} if self.sampling.plain else {"scored_at": "sampling temperature"}
        return scored | ({"anchor": "average of products"} if self.averages_adapters else {})

    @model_validator(mode="after")
    def _follows_the_training(self) -> "RolloutConfig":
        check_follows_training(self.sampler)
        return self

    @model_validator(mode="after")
    def _control_is_not_learnt(self) -> "RolloutConfig":
        if both := [name for name in self.control if name in self.rewards]:
            raise ValueError(
                f"control names {both[0]}, which is also in `rewards`: a control must not be learned from; remove it "
                "from one of the two"
            )
        return self

    @model_validator(mode="after")
    def _can_overlap(self) -> "RolloutConfig":
        if self.overlap and self.sampler.backend != "vllm":
            raise ValueError(
                "overlap needs a sampler in a process of its own, but sampler.backend is "
                f"{self.sampler.backend}: set sampler.backend to vllm"
            )
        if self.overlap and self.sampler.sleep:
            raise ValueError(
                "overlap samples during training, but sampler.sleep frees the sampler's memory then: remove one of them"
            )
        if self.overlap and self.importance_cap is None:
            raise ValueError(
                "overlap learns from completions of weights that are one step old, which need a correction: set "
                "importance_cap (usual: 2)"
            )
        return self
