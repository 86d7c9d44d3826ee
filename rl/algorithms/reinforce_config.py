"""Configuration of REINFORCE: RLOO, GRPO, and RLEF over turns. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from gemsmith.contracts.planning import CheckContext
from gemsmith.rl.algorithms.rollout_config import K1, RolloutConfig
from gemsmith.rl.rewards.compatibility import turns_fault

K2 = "k2: mean over tokens of x^2 / 2"
K3 = "k3: mean over tokens of exp(-x) + x - 1"


class ReinforceAlgorithm(RolloutConfig):
    """REINFORCE with a baseline from the samples of a prompt; with other settings RLOO, GRPO, and RLEF over turns."""

    algorithm: ClassVar[str] = "gemsmith.rl.algorithms.reinforce:build_reinforce"

    kind: Literal["reinforce"]
    samples: int = Field(2, ge=2, description="Completions for each prompt (BOND's baseline runs: 2; R1-Zero: 16).")
    baseline: Literal["leave_one_out", "group_mean"] = Field(
        "leave_one_out",
        description="Taken from a completion's reward. leave_one_out: the mean of the prompt's others (RLOO), "
        "unbiased. group_mean: the mean of them all (GRPO), which makes advantages smaller by (samples - 1) / samples.",
    )
    scale: Literal["none", "std"] = Field(
        "none",
        description="What advantages are divided by. std: the standard deviation of the prompt's rewards (GRPO), which "
        "gives prompts that are nearly always or nearly never solved more weight; all-equal rewards give 0.",
    )
    kl: float = Field(
        0.05,
        ge=0,
        description="Weight of the KL to the reference, per nat (Tulu 3: 0.05; R1-Zero: 0.001, in the loss).",
    )
    kl_to: Literal["initial", "anchor"] = Field("initial", description="The reference: the initial policy or its EMA.")
    kl_in: Literal["reward", "loss"] = Field(
        "reward",
        description="reward: the completion's log-ratio is taken from its reward, the exact gradient of the KL. loss: "
        "an estimate of each token's KL is added to the loss (GRPO).",
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        None,
        description="Estimate of a token's KL. k1, the log-ratio: in the reward, where it is the only one. In the loss "
        "k2, half its square, whose gradient is that of KL(policy || reference), or k3 (GRPO), whose gradient is that "
        "of KL(reference || policy), both with the tokens before held fixed. None: k1 in the reward, k3 in the loss.",
    )
    anchor_rate: float = Field(0.01, ge=0, le=1, description="EMA rate of the anchor a step (WARP: 0.01).")
    length_norm: Literal["none", "sequence", "batch"] = Field(
        "none",
        description="What the sum over a completion's tokens is divided by. none: nothing, the exact gradient of the "
        "policy. sequence: its own length (GRPO), by which a token of a short completion counts for more. batch: the "
        "step's mean length, so that all tokens count alike.",
    )
    updates: int = Field(
        1,
        ge=1,
        description="Optimiser steps for each rollout, each on `batch` of the rollout's updates * batch prompts "
        "(R1-Zero: 16). It divides `steps`; `save_every` is rounded up to a multiple, as checkpoints fall between "
        "rollouts.",
    )
    clip: list[float] | None = Field(
        default_factory=lambda: [0.2, 0.2],
        min_length=2,
        max_length=2,
        description="[low, high]: a token's ratio to the policy that drew it earns nothing beyond 1 - low and 1 + high "
        "(PPO, RLEF: 0.2 and 0.2; R1: high 10); null: no bound. With `updates: 1` the ratio is 1, and it never binds.",
    )
    unfinished_penalty: float = Field(
        0.0, ge=0, description="Taken from the reward of a completion that max_tokens cut off (Tulu 3: 10)."
    )

    turns: int = Field(
        1,
        ge=1,
        description="Programs that may be written for a prompt, each after word of the tests that the last one failed "
        "(RLEF: 3). Above 1 `rewards` names one reward of kind code: 1 where the last program passes all tests, else "
        "-1, and -0.2 for an earlier turn without a program; `kl` weighs the mean log-ratio of a turn's tokens.",
    )
    public_tests: int = Field(
        2, ge=1, description="With turns: how many of a row's first tests are told of; all of them score."
    )

    @property
    def own_completions(self) -> int:
        """All completions are the policy's own, several of a prompt."""
        return self.samples * self.turns

    @property
    def completions_per_prompt(self) -> int:
        """`own_completions`."""
        return self.own_completions

    @property
    def most_turns(self) -> int:
        """`turns`."""
        return self.turns

    def estimators(self) -> dict[str, str]:
        """Return the estimates of the KL to the anchor and of the KL in the loss, where they are measured."""
        found = {"kl_to_anchor": K1.format("anchor")} if self.kl_to == "anchor" else {}
        if self.kl_in == "loss" and self.kl:
            form = K2 if self.kl_estimator == "k2" else K3
            found["kl_loss"] = f"{form}, x = log policy - log {self.kl_to}, in nats a token"
        return found

    @property
    def warp_fault(self) -> str | None:
        """WARP's moving average is what the KL is taken to."""
        if self.kl_to != "anchor":
            return "inside warp, reinforce takes its KL to the EMA anchor: set `kl_to: anchor`"
        return None

    def check_algorithm(self, context: CheckContext) -> None:
        """Add that several turns learn from the tests of programs."""
        super().check_algorithm(context)
        if self.turns > 1 and (fault := turns_fault(context.rewards[self.rewards[0]])):
            context.add_to_recipe(("rewards", self.rewards[0]), f"stage {context.id}: {fault}")

    @property
    def steps_per_rollout(self) -> int:
        """`updates`."""
        return self.updates

    @field_validator("clip")
    @classmethod
    def _clip_leaves_room(cls, clip: list[float] | None) -> list[float] | None:
        if clip is not None and not (clip[0] > 0 and clip[1] > 0):
            raise ValueError(f"clip is [{clip[0]:g}, {clip[1]:g}]: expected two distances from 1 above 0")
        return clip

    @model_validator(mode="after")
    def _kl_is_where_it_can_be(self) -> "ReinforceAlgorithm":
        if self.kl_in == "reward" and self.kl_estimator in ("k2", "k3"):
            raise ValueError(f"kl_estimator {self.kl_estimator} is for the loss: set `kl_in: loss`, or remove it")
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError("kl_estimator k1 in the loss has a gradient of mean 0, and holds nothing: take k2 or k3")
        if self.kl_in == "reward" and self.scale == "std" and self.kl:
            raise ValueError(
                "scale std blows up the KL in the reward where a prompt's rewards tie: set `kl_in: loss` or `kl: 0`"
            )
        return self

    @model_validator(mode="after")
    def _turns_have_their_own_reward(self) -> "ReinforceAlgorithm":
        if self.turns == 1:
            return self
        if len(self.rewards) > 1:
            raise ValueError(
                f"turns {self.turns} learns from one reward, of kind code: `rewards` has {len(self.rewards)}"
            )
        single = {"kl_in": "reward", "baseline": "leave_one_out", "scale": "none", "unfinished_penalty": 0.0}
        for name, value in {**single, "control": [], "overlap": False}.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"`{name}` is for completions of one turn, and turns is {self.turns}: remove one of them"
                )
        return self
