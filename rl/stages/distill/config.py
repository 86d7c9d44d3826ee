"""Configuration of distillation. Imports no torch."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, ModelSize, Scoring
from gemsmith.contracts.stage import OutputKind
from gemsmith.policy.config import (
    KeepingConfig,
    PolicyConfig,
    SamplerConfig,
    SamplingConfig,
    check_follows_training,
)
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.policy.training_stage import TrainingStage
from gemsmith.rl.distillation.config import TargetsConfig
from gemsmith.rl.rewards.compatibility import check_gates_of
from gemsmith.rl.teachers.taught_stage import TaughtStage


class DistillStage(TaughtStage, TrainingStage, TargetsConfig, KeepingConfig):
    """Distillation from a teacher: sampled logits (Gemma 3 report, section 2.2), on the student's own words (GKD)."""

    entry: ClassVar[str] = "gemsmith.rl.stages.distill.stage:run"
    version: ClassVar[int] = 4  # entries are drawn from uniform numbers
    produces: ClassVar[OutputKind] = "policy"

    kind: Literal["distill"]
    policy: PolicyConfig | None = Field(None, description="The student; none: the recipe's policy.")
    data: str = Field(
        description="Name of a data section with demonstrations, on whose tokens the teacher is asked; its prompts "
        "alone are read with `on_policy: 1`."
    )
    divergence: Literal["forward", "reverse", "jsd"] = Field(
        "forward",
        description="What is lowered. forward: cross-entropy to the sampled logits, KL(teacher || student) but for a "
        "constant. reverse: KL(student || teacher). jsd: the generalised Jensen-Shannon divergence. The last two are "
        "over the whole vocabulary, and need a teacher that has it.",
    )
    jsd_beta: float = Field(
        0.5,
        ge=0,
        le=1,
        description="jsd: b in b KL(teacher || M) + (1 - b) KL(student || M), M = b teacher + (1 - b) student (GKD: "
        "0.1, 0.5, 0.9). 0 is KL(teacher || student) over the whole vocabulary, 1 is KL(student || teacher).",
    )
    on_policy: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Lambda of GKD: share of the steps, drawn by the seed, that are on completions which the student "
        "samples instead of the demonstrations (GKD: 1, or 0.5).",
    )
    samples: int | None = Field(
        None,
        ge=1,
        description="on_policy: the student's completions of each prompt; none: 1, or 2 with rewards, which compare "
        "the completions of a prompt.",
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="on_policy: how the student's completions are drawn (GKD: at 1)."
    )
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="on_policy: what draws them.")
    rewards: list[str] = Field(
        default_factory=list,
        description="on_policy: names of the recipe's rewards, whose weighted sum is raised beside.",
    )
    reward_weight: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="rewards: r in r * reward - (1 - r) * divergence, which is raised (GKD, equation 5, with alpha = "
        "1 - r); the reward by REINFORCE with the other samples of a prompt for a baseline.",
    )

    @property
    def completions_per_prompt(self) -> int:
        """The student's completions of a prompt in an on-policy step."""
        return self.samples or (2 if self.rewards else 1)

    def _given(self, *names: str) -> list[str]:
        """Which of the fields are not at their defaults."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].get_default(call_default_factory=True)]

    @model_validator(mode="after")
    def _on_policy_fields_have_their_steps(self) -> "DistillStage":
        given = self._given("samples", "sampling", "sampler", "rewards")
        if given and not self.on_policy:
            raise ValueError(
                f"{given[0]} is for the student's own completions, and on_policy is 0: set on_policy, the share of "
                "steps on them"
            )
        check_follows_training(self.sampler)
        return self

    @model_validator(mode="after")
    def _fields_of_each_other(self) -> "DistillStage":
        if self.rewards and self.completions_per_prompt < 2:
            raise ValueError("rewards compare the completions of a prompt, and samples is 1: set samples to 2 or more")
        if self._given("reward_weight") and not self.rewards:
            raise ValueError("reward_weight weighs `rewards`, and there are none: name some, or remove it")
        if self._given("jsd_beta") and self.divergence != "jsd":
            raise ValueError(f"jsd_beta is for `divergence: jsd`, and divergence is {self.divergence}: remove one")
        if self.divergence != "forward" and (drawn := self._given("sampled_logits", "mode")):
            raise ValueError(
                f"divergence {self.divergence} is over the whole vocabulary and draws no logits: remove {drawn[0]}"
            )
        return self

    @model_validator(mode="after")
    def _the_teacher_has_what_is_asked(self) -> "DistillStage":
        for teacher in (share.teacher for share in self.shares):
            if self.divergence != "forward" and (teacher.server is not None or teacher.store is not None):
                raise ValueError(
                    f"divergence {self.divergence} needs the teacher's whole distribution, and {teacher.name} gives K "
                    "entries a token: take divergence forward, or a teacher by `model` or `from`"
                )
            if self.on_policy and teacher.store is not None:
                raise ValueError(
                    "on_policy asks the teacher about the student's own completions, which no store can have: set "
                    "on_policy to 0, or take a teacher by `model`, `from` or `server`"
                )
        return self

    @property
    def needs_demonstrations(self) -> bool:
        """Whether some steps are on demonstrations and not on the student's own completions."""
        return self.on_policy < 1

    def conflicts_with_store(self) -> Iterator[tuple[str, object, object]]:
        """Yield a divergence over the whole vocabulary, and steps on the student's own completions."""
        if self.divergence != "forward":
            yield "divergence", self.divergence, "forward"
        if self.on_policy:
            yield "on_policy", self.on_policy, 0

    def scorings(self) -> Sequence[Scoring]:
        """Return what the rewards score, where there are any."""
        return (Scoring(self.data, tuple(self.rewards)),) if self.rewards else ()

    def check(self, context: CheckContext) -> None:
        """Add gates that do not fit, and completions that leave no room for a prompt."""
        super().check(context)
        check_gates_of(self.rewards, context)
        if self.on_policy and self.sampling.max_tokens >= self.max_length:
            expected = f"expected less than max_length, which is {self.max_length}, to leave room for a prompt"
            context.add(("sampling", "max_tokens"), f"found {self.sampling.max_tokens}, {expected}")

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Return the costs of teachers and reward models, and of the student's completions in its share of steps."""
        teachers, judges = self.teacher_parameters(context), context.judge_parameters(tuple(self.rewards))
        completions = self.on_policy * self.completions_per_prompt
        return TrainingCosts(
            passes=1.0 - self.on_policy + completions,
            completions=completions,
            frozen=teachers + judges,
            teacher_flops=2.0 * teachers,
            scoring_flops=2.0 * completions * judges,
        )
