"""Configuration of distillation. Imports no torch."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, ModelSize, Scoring
from gemsmith.contracts.stage import OutputKind
from gemsmith.policy.config import (
    KeepingConfig,
    PolicyConfig,
    SamplerConfig,
    SamplingConfig,
    check_follows_training,
    check_untruncated,
)
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.policy.training_stage import TrainingStage
from gemsmith.rl.distillation.config import TargetsConfig
from gemsmith.rl.rewards.compatibility import check_gates_of
from gemsmith.rl.teachers.taught_stage import TaughtStage


class DistillStage(TaughtStage, TrainingStage, TargetsConfig, KeepingConfig):
    """Distillation from a teacher's sampled logits (Gemma 3 report, section 2.2), optionally on-policy (GKD)."""

    entry: ClassVar[str] = "gemsmith.rl.stages.distill.stage:run"
    version: ClassVar[int] = 4  # entries are drawn from uniform numbers
    produces: ClassVar[OutputKind] = "policy"

    kind: Literal["distill"]
    policy: PolicyConfig | None = Field(None, description="The student. Not set: the recipe's `policy`.")
    data: str = Field(
        description="Name of a data section with demonstrations; the teacher scores their tokens. With "
        "`on_policy: 1` only the prompts are read."
    )
    divergence: Literal["forward", "reverse", "jsd"] = Field(
        "forward",
        description="Divergence to minimise. forward: cross-entropy to the sampled logits, which is KL(teacher || "
        "student) up to a constant. reverse: KL(student || teacher). jsd: generalised Jensen-Shannon divergence. "
        "reverse and jsd cover the whole vocabulary, so they need a teacher given by `model` or `from`.",
    )
    jsd_beta: float = Field(
        0.5,
        ge=0,
        le=1,
        description="With `divergence: jsd`: b in b KL(teacher || M) + (1 - b) KL(student || M), "
        "M = b teacher + (1 - b) student (GKD: 0.1, 0.5, 0.9). 0 is KL(teacher || student) "
        "over the whole vocabulary, 1 is KL(student || teacher).",
    )
    on_policy: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Lambda of GKD: share of the steps that train on completions sampled from the student instead of "
        "demonstrations; the seed determines which steps (GKD: 1, or 0.5).",
    )
    samples: int | None = Field(
        None,
        ge=1,
        description="With `on_policy`: completions sampled per prompt. Not set: 1, or 2 with `rewards`, which compare "
        "the completions of one prompt.",
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig,
        description="With `on_policy`: how the student samples its completions (GKD: temperature 1).",
    )
    sampler: SamplerConfig = Field(
        default_factory=SamplerConfig, description="With `on_policy`: which sampler generates the completions."
    )
    rewards: list[str] = Field(
        default_factory=list,
        description="With `on_policy`: names of the recipe's rewards; training also maximises their weighted sum.",
    )
    reward_weight: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="With `rewards`: r in the objective r * reward - (1 - r) * divergence (GKD, equation 5, with "
        "alpha = 1 - r). The reward is maximised by REINFORCE; its baseline is the mean reward of the prompt's other "
        "samples.",
    )

    @property
    def completions_per_prompt(self) -> int:
        """Number of completions that the student samples per prompt in an on-policy step."""
        return self.samples or (2 if self.rewards else 1)

    def changed_results(self) -> dict[str, Any]:
        """Return the revision of rewards at another temperature than 1: log-probabilities are at that temperature."""
        return {"scored_at": "sampling temperature"} if self.rewards and not self.sampling.plain else {}

    def _given(self, *names: str) -> list[str]:
        """Return the names of the fields that differ from their defaults."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].get_default(call_default_factory=True)]

    @property
    def _mode(self) -> list[str]:
        """Return the name of the field `mode` if its value is neither the default nor that of earlier versions."""
        return [name for name in self._given("mode") if self.mode != "gumbel_renorm"]

    @model_validator(mode="after")
    def _on_policy_fields_have_their_steps(self) -> "DistillStage":
        given = self._given("samples", "sampling", "sampler", "rewards")
        if given and not self.on_policy:
            raise ValueError(
                f"{given[0]} applies only to completions sampled from the student, but on_policy is 0: set on_policy "
                f"to the share of steps that use them, or remove {given[0]}"
            )
        check_follows_training(self.sampler)
        return self

    @model_validator(mode="after")
    def _fields_of_each_other(self) -> "DistillStage":
        if self.rewards and self.completions_per_prompt < 2:
            raise ValueError(
                "rewards compare the completions of one prompt, but samples is 1: set samples to 2 or more"
            )
        if self.rewards:
            check_untruncated(self.sampling, "a reward")
        if self._given("reward_weight") and not self.rewards:
            raise ValueError(
                "reward_weight has no effect because `rewards` is empty: list rewards, or remove reward_weight"
            )
        if self._given("jsd_beta") and self.divergence != "jsd":
            raise ValueError(
                f"jsd_beta applies only to `divergence: jsd`, but divergence is {self.divergence}: change divergence "
                "or remove jsd_beta"
            )
        if self.divergence != "forward" and (drawn := [*self._given("sampled_logits"), *self._mode]):
            raise ValueError(
                f"divergence {self.divergence} covers the whole vocabulary and samples no logits: remove {drawn[0]}"
            )
        return self

    @model_validator(mode="after")
    def _the_teacher_has_what_is_asked(self) -> "DistillStage":
        for teacher in (share.teacher for share in self.shares):
            if self.divergence != "forward" and (teacher.server is not None or teacher.store is not None):
                raise ValueError(
                    f"divergence {self.divergence} needs the teacher's whole distribution, but {teacher.name} provides "
                    "only K entries per token: set divergence to forward, or give the teacher by `model` or `from`"
                )
            if self.on_policy and teacher.store is not None:
                raise ValueError(
                    "on_policy needs a teacher that can score the student's new completions, but a store holds only "
                    "the demonstrations: set on_policy to 0, or give the teacher by `model`, `from` or `server`"
                )
        return self

    @property
    def needs_demonstrations(self) -> bool:
        """True if some steps train on demonstrations, so that the data must have them."""
        return self.on_policy < 1

    def conflicts_with_store(self) -> Iterator[tuple[str, object, object]]:
        """Yield a divergence over the whole vocabulary, and on-policy steps, as (field, found, expected)."""
        if self.divergence != "forward":
            yield "divergence", self.divergence, "forward"
        if self.on_policy:
            yield "on_policy", self.on_policy, 0

    def scorings(self) -> Sequence[Scoring]:
        """Return the data and rewards that this stage combines; empty without rewards."""
        return (Scoring(self.data, tuple(self.rewards)),) if self.rewards else ()

    def check(self, context: CheckContext) -> None:
        """Also report invalid reward gates, and a `max_tokens` that leaves no tokens for the prompt."""
        super().check(context)
        check_gates_of(self.rewards, context)
        if self.on_policy and self.sampling.max_tokens >= self.max_length:
            expected = f"expected less than max_length ({self.max_length}), so that the prompt fits too"
            context.add(("sampling", "max_tokens"), f"found {self.sampling.max_tokens}, {expected}")

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Return the costs of the teachers, the reward models and the on-policy completions."""
        teachers, judges = self.teacher_parameters(context), context.judge_parameters(tuple(self.rewards))
        completions = self.on_policy * self.completions_per_prompt
        return TrainingCosts(
            passes=1.0 - self.on_policy + completions,
            completions=completions,
            frozen=teachers + judges,
            teacher_flops=2.0 * teachers,
            scoring_flops=2.0 * completions * judges,
        )
