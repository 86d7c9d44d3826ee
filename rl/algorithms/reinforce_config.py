"""Configuration of REINFORCE: RLOO, GRPO, and RLEF over turns. Imports no torch."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from gemsmith.contracts.planning import CheckContext
from gemsmith.rl.algorithms.rollout_config import K1, RolloutConfig
from gemsmith.rl.rewards.compatibility import turns_fault

K2 = "k2: mean over tokens of x^2 / 2"
K3 = "k3: mean over tokens of exp(-x) + x - 1"


class ReinforceAlgorithm(RolloutConfig):
    """REINFORCE with a per-prompt baseline; its settings include RLOO, GRPO, and RLEF over several turns."""

    algorithm: ClassVar[str] = "gemsmith.rl.algorithms.reinforce:build_reinforce"

    kind: Literal["reinforce"]
    samples: int = Field(2, ge=2, description="Completions for each prompt (BOND's baseline runs: 2; R1-Zero: 16).")
    baseline: Literal["leave_one_out", "group_mean"] = Field(
        "leave_one_out",
        description="Baseline that is subtracted from a completion's reward. leave_one_out: the mean reward of the "
        "prompt's other completions (RLOO), unbiased. group_mean: the mean reward of all of them (GRPO), which scales "
        "advantages by (samples - 1) / samples.",
    )
    scale: Literal["none", "std"] = Field(
        "none",
        description="Scaling of advantages. std: division by the standard deviation of the prompt's rewards plus 1e-4 "
        "(GRPO, TRL). "
        "This gives more weight to prompts that are nearly always or nearly never solved; equal rewards give 0.",
    )
    kl: float = Field(
        0.05,
        ge=0,
        description="Weight of the KL to the reference, in units of reward per nat (Tulu 3: 0.05; R1-Zero: 0.001, in "
        "the loss).",
    )
    kl_to: Literal["initial", "anchor"] = Field(
        "initial", description="Reference of the KL. initial: the initial policy. anchor: the policy's EMA."
    )
    kl_in: Literal["reward", "loss"] = Field(
        "reward",
        description="Place of the KL. reward: kl times the completion's log-ratio is subtracted from its reward, which "
        "gives the exact gradient of the KL. loss: an estimate of each token's KL is added to the loss (GRPO).",
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        None,
        description="Estimator of the KL. k1: the log-ratio, the only one for the reward. k2: half its squared value, "
        "for the loss, with the gradient of KL(policy || reference). k3 (GRPO): for the loss, with the gradient of "
        "KL(reference || policy). Both gradients treat the preceding tokens as fixed. Not set: k1 in the reward, k3 in "
        "the loss.",
    )
    anchor_rate: float = Field(0.01, ge=0, le=1, description="EMA rate of the anchor per step (WARP: 0.01).")
    length_norm: Literal["none", "sequence", "batch"] = Field(
        "none",
        description="Divisor of the sum over a completion's tokens. none: no division, the exact policy gradient. "
        "sequence: the completion's length (GRPO), which gives tokens of short completions more weight. batch: the "
        "mean length of the step's completions, so that all tokens have the same weight.",
    )
    updates: int = Field(
        1,
        ge=1,
        description="Optimiser steps per rollout, each on `batch` of the rollout's updates * batch prompts "
        "(R1-Zero: 16). `steps` must be a multiple of it; `save_every` is rounded up to a multiple, as checkpoints "
        "are written between rollouts.",
    )
    clip: list[float] | None = Field(
        default_factory=lambda: [0.2, 0.2],
        min_length=2,
        max_length=2,
        description="[low, high]: clips a token's ratio to the policy that sampled it to 1 - low and 1 + high (PPO, "
        "RLEF: 0.2 and 0.2; R1: high 10); null: no clipping. With `updates: 1` the ratio is 1 and never clipped.",
    )
    unfinished_penalty: float = Field(
        0.0, ge=0, description="Subtracted from the reward of a completion that max_tokens cut off (Tulu 3: 10)."
    )

    turns: int = Field(
        1,
        ge=1,
        description="Maximum number of turns per prompt: after a program fails its public tests, the policy sees the "
        "failures and writes another (RLEF: 3). Above 1, `rewards` must name one reward of kind code; an episode gets "
        "1 if its last program passes all tests, else -1, and -0.2 for each earlier turn without a program; `kl` then "
        "weighs the mean log-ratio of a turn's tokens.",
    )
    public_tests: int = Field(
        2,
        ge=1,
        description="Number of a row's first tests whose failures the policy sees, if `turns` is above 1; the reward "
        "uses all tests.",
    )

    def changed_results(self) -> dict[str, Any]:
        """Add that advantages are divided by the standard deviation plus an epsilon, where they are divided at all."""
        return super().changed_results() | ({"std_epsilon": 1e-4} if self.scale == "std" else {})

    @property
    def own_completions(self) -> int:
        """Return the largest number of policy completions per prompt: `samples` in each of `turns` turns."""
        return self.samples * self.turns

    @property
    def completions_per_prompt(self) -> int:
        """Return `own_completions`, because all completions come from the policy."""
        return self.own_completions

    @property
    def most_turns(self) -> int:
        """Return `turns`."""
        return self.turns

    def estimators(self) -> dict[str, str]:
        """Describe how the KL to the anchor and the KL in the loss are estimated, if they are measured."""
        estimators = {"kl_to_anchor": K1.format("anchor")} if self.kl_to == "anchor" else {}
        if self.kl_in == "loss" and self.kl:
            form = K2 if self.kl_estimator == "k2" else K3
            estimators["kl_loss"] = f"{form}, x = log policy - log {self.kl_to}, in nats per token"
        return estimators

    @property
    def averages_policy(self) -> bool:
        """Return True if the KL's reference is a moving average of the policy."""
        return self.kl_to == "anchor"

    @property
    def warp_fault(self) -> str | None:
        """Return a message if the KL's reference is not the anchor, which WARP requires, else None."""
        if self.kl_to != "anchor":
            return f"inside warp, the KL's reference is the EMA anchor, but kl_to is {self.kl_to}: set `kl_to: anchor`"
        return None

    def check_algorithm(self, context: CheckContext) -> None:
        """Also refuse a reward that does not support several turns."""
        super().check_algorithm(context)
        if self.turns > 1 and (fault := turns_fault(context.rewards[self.rewards[0]])):
            context.add_to_recipe(("rewards", self.rewards[0]), f"stage {context.id}: {fault}")

    @property
    def steps_per_rollout(self) -> int:
        """Return `updates`."""
        return self.updates

    @field_validator("clip")
    @classmethod
    def _clip_leaves_room(cls, clip: list[float] | None) -> list[float] | None:
        if clip is not None and not (clip[0] > 0 and clip[1] > 0):
            raise ValueError(f"found [{clip[0]:g}, {clip[1]:g}], expected [low, high] with both numbers above 0")
        return clip

    @model_validator(mode="after")
    def _kl_is_where_it_can_be(self) -> "ReinforceAlgorithm":
        if self.kl_in == "reward" and self.kl_estimator in ("k2", "k3"):
            raise ValueError(
                f"kl_estimator {self.kl_estimator} needs `kl_in: loss`, but kl_in is reward: set `kl_in: loss`, or "
                "remove kl_estimator"
            )
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator k1 with `kl_in: loss` has a gradient of mean 0 and no effect: set it to k2 or k3"
            )
        if self.kl_in == "reward" and self.scale == "std" and self.kl:
            raise ValueError(
                "scale std divides the KL in the reward by almost 0 where a prompt's rewards are nearly equal: set "
                "`kl_in: loss` or `kl: 0`"
            )
        return self

    @model_validator(mode="after")
    def _turns_have_their_own_reward(self) -> "ReinforceAlgorithm":
        if self.turns == 1:
            return self
        if len(self.rewards) > 1:
            raise ValueError(
                f"turns {self.turns} needs one reward of kind code, but `rewards` has {len(self.rewards)}: keep one"
            )
        single = {"kl_in": "reward", "baseline": "leave_one_out", "scale": "none", "unfinished_penalty": 0.0}
        for name, value in {**single, "control": [], "overlap": False}.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"`{name}` is supported with one turn only, but turns is {self.turns}: remove one of the two"
                )
        return self
