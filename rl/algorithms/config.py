"""Configuration of fine-tuning and reinforcement. Imports no torch."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, ModelSize, Scoring
from gemsmith.policy.config import SamplerConfig, SamplingConfig, TrainingConfig
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.rl.rewards.compatibility import check_gates_of, turns_fault

ANCHOR_RATE = 0.02  # of BOND's EMA anchor, a step (paper, 7B)
ANCHOR_PERIOD = 50  # steps between refreshes of its periodic anchor; what a rate of 0.02 comes to
ANCHOR_SAMPLES = 16  # that a quantile is counted among (paper)


K1 = "k1, sampled: mean over the policy's completions of log policy(y) - log {}(y), in nats a completion"
K2 = "k2: mean over tokens of x^2 / 2"
K3 = "k3: mean over tokens of exp(-x) + x - 1"


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
    def several_turns(self) -> bool:
        """Whether a completion may be followed by word of tests and another completion."""
        return False

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
        """Optimiser steps that learn from one rollout."""
        return 1

    @model_validator(mode="after")
    def _follows_the_training(self) -> "RolloutConfig":
        if self.sampler.backend == "server":
            raise ValueError(
                "sampler.backend is server, whose weights do not follow the training: take transformers or vllm"
            )
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


class BondAlgorithm(RolloutConfig):
    """Best-of-N distillation (Sessa et al. 2024): J-BOND (Algorithm 2), or BOND with any N (Algorithm 1)."""

    algorithm: ClassVar[str] = "gemsmith.rl.algorithms.bond:build_bond"

    kind: Literal["bond"]
    form: Literal["jbond", "bond"] = Field(
        "jbond",
        description="How a sample is judged. jbond: against two samples of the anchor, towards its Best-of-2. "
        "bond: by its quantile among the anchor's samples, towards the anchor's Best-of-n.",
    )
    n: int = Field(
        2, ge=2, description="N of the target, Best-of-N of the anchor (paper: 2 or 4 iterated; 4, 8 or 16 at one go)."
    )
    beta: float = Field(
        0.5, ge=0, le=1, description="Weight of the backward KL; 1 - beta weighs the forward KL (paper: 0.5)."
    )
    gamma: float = Field(0.0, ge=0, description="Weight of the KL to the anchor (paper: 0 to 2).")
    anchor: Literal["ema", "periodic", "fixed"] = Field(
        "ema",
        description="What the anchor is. ema: a moving average of the policy. periodic: the policy as it was at the "
        "last refresh. fixed: the initial policy, whose Best-of-n is the one target.",
    )
    anchor_rate: float | None = Field(
        None, ge=0, le=1, description=f"ema: its rate a step; none: {ANCHOR_RATE} (paper, 7B; 0.01 to 0.1 for 2B)."
    )
    anchor_every: int | None = Field(
        None,
        ge=1,
        description=f"periodic: steps between refreshes; none: {ANCHOR_PERIOD} (paper, 7B; 1000 in its XSum runs).",
    )
    quantile: Literal["samples", "classifier"] = Field(
        "samples",
        description="bond: what tells the quantile. samples: counting among the anchor's. classifier: a model that is "
        "trained beside the policy (appendix B.1), so that n samples of the anchor are enough.",
    )
    quantile_samples: int | None = Field(
        None,
        ge=1,
        description=f"k, samples of the anchor to count among; none: {ANCHOR_SAMPLES} (paper), or n where beta is 0.",
    )
    quantile_learning_rate: float | None = Field(
        None, gt=0, description="Learning rate of the classifier, constant; none: the policy's `learning_rate`."
    )

    @property
    def anchor_samples_compared(self) -> int:
        """Samples of the anchor, for each prompt, that a sample of the policy is compared with."""
        if self.form == "jbond" or self.quantile == "classifier":
            return self.n
        return self.quantile_samples or (ANCHOR_SAMPLES if self.beta else self.n)

    @property
    def completions_per_prompt(self) -> int:
        """Completions drawn for each prompt: one of the policy, the others of the anchor."""
        return 1 + max(self.n, self.anchor_samples_compared)

    @model_validator(mode="after")
    def _judged_as_the_form_does(self) -> "BondAlgorithm":
        asked = {"quantile": self.quantile == "classifier", **{name: bool(getattr(self, name)) for name in _QUANTILE}}
        stray = next((name for name, given in asked.items() if given), None)
        if self.form == "jbond" and self.n != 2:
            raise ValueError(f"form jbond distils Best-of-2, and n is {self.n}: set `form: bond`")
        if self.form == "jbond" and stray:
            raise ValueError(f"form jbond estimates no quantile: remove {stray}, or set `form: bond`")
        if self.quantile == "classifier" and self.beta == 0:
            raise ValueError("beta 0 learns from Best-of-n samples alone, which asks for no quantile: remove quantile")
        if self.quantile == "classifier" and self.quantile_samples:
            raise ValueError("quantile_samples is for `quantile: samples`, and quantile is classifier: remove one")
        if self.quantile == "samples" and self.quantile_learning_rate:
            raise ValueError("quantile_learning_rate is for `quantile: classifier`, and quantile is samples")
        return self

    @model_validator(mode="after")
    def _moves_as_the_anchor_does(self) -> "BondAlgorithm":
        for name, kind in (("anchor_rate", "ema"), ("anchor_every", "periodic")):
            if getattr(self, name) is not None and self.anchor != kind:
                raise ValueError(f"{name} is for `anchor: {kind}`, and anchor is {self.anchor}: remove one of the two")
        return self

    @property
    def passes_per_prompt(self) -> float:
        """The policy's sample, the anchor's best, one that is scored twice, and the classifier's."""
        return 3 + (self.quantile == "classifier")

    @property
    def warns_of_ties(self) -> bool:
        """J-BOND compares a sample with two of the anchor, and a tie tells nothing."""
        return self.form == "jbond"

    def estimators(self) -> dict[str, str]:
        """Return the estimates of the KL to the anchor and of the log-quantile."""
        counted = f"c of k = {self.anchor_samples_compared} completions of the anchor are not better"
        learnt = "mean log p of a classifier of completions, in nats"
        counting = f"mean of log((c + 1/2) / (k + 1/2)), where {counted}, in nats"
        quantile = learnt if self.quantile == "classifier" else counting
        return {"kl_to_anchor": K1.format("anchor"), "log_quantile": quantile}

    @property
    def warp_fault(self) -> str | None:
        """WARP's own anchor stands in for BOND's, and a classifier would begin anew in each run."""
        if self.anchor != "ema":
            return f"inside warp, the anchor is WARP's moving average: remove `anchor: {self.anchor}`"
        if self.quantile == "classifier":
            return "inside warp, each run would begin a classifier of its own: set `quantile: samples`"
        return None

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Add the classifier, which is as large as what is trained."""
        beside = trained if self.quantile == "classifier" else 0
        return replace(super().costs(size, trained, context), trained_beside=beside)

    def check_algorithm(self, context: CheckContext) -> None:
        """Add that DeepSpeed would not train the classifier."""
        super().check_algorithm(context)
        if self.quantile == "classifier" and context.engine.deepspeed is not None:
            expected = "expected samples under engine.deepspeed, which would not train the classifier"
            context.add(("quantile",), f"found classifier, {expected}")

    def undealt(self, processes: int) -> str | None:
        """As every training, and a classifier is trained in one process."""
        if self.quantile == "classifier" and processes > 1:
            return f"`quantile: classifier` trains in one process and {processes} run: set `quantile: samples`."
        return super().undealt(processes)


_QUANTILE = ("quantile_samples", "quantile_learning_rate")


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
    def several_turns(self) -> bool:
        """Whether `turns` is above 1."""
        return self.turns > 1

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

    @model_validator(mode="after")
    def _rollouts_fill_the_steps(self) -> "ReinforceAlgorithm":
        if self.steps % self.updates:
            raise ValueError(f"updates {self.updates} does not divide steps {self.steps}: change the one or the other")
        return self


AnyAlgorithm = Annotated[BondAlgorithm | ReinforceAlgorithm, Field(discriminator="kind")]
ALGORITHMS: tuple[type[RolloutConfig], ...] = get_args(get_args(AnyAlgorithm)[0])
"""The configurations in `AnyAlgorithm`."""
