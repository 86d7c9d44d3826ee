"""Configuration of Best-of-N distillation. Imports no torch."""

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, ModelSize
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.rl.algorithms.rollout_config import K1, RolloutConfig

ANCHOR_RATE = 0.02  # of BOND's EMA anchor, a step (paper, 7B)
ANCHOR_PERIOD = 50  # steps between refreshes of its periodic anchor; what a rate of 0.02 comes to
ANCHOR_SAMPLES = 16  # that a quantile is counted among (paper)


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

    def batch_fault(self, processes: int) -> str | None:
        """As every training, and a classifier is trained in one process."""
        if self.quantile == "classifier" and processes > 1:
            return f"`quantile: classifier` trains in one process and {processes} run: set `quantile: samples`."
        return super().batch_fault(processes)


_QUANTILE = ("quantile_samples", "quantile_learning_rate")
