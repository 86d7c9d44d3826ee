"""Configuration of Best-of-N distillation. Imports no torch."""

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, ModelSize
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.rl.algorithms.rollout_config import K1, RolloutConfig

ANCHOR_RATE = 0.02  # EMA rate per step (paper, 7B)
ANCHOR_PERIOD = 50  # steps between refreshes of the periodic anchor: 1 / 0.02, the time constant of the EMA
ANCHOR_SAMPLES = 16  # anchor samples per prompt for a counted quantile (paper)


class BondAlgorithm(RolloutConfig):
    """Best-of-N distillation (Sessa et al. 2024): J-BOND (Algorithm 2), or BOND with any N (Algorithm 1)."""

    algorithm: ClassVar[str] = "gemsmith.rl.algorithms.bond:build_bond"

    kind: Literal["bond"]
    form: Literal["jbond", "bond"] = Field(
        "jbond",
        description="Variant of BOND. jbond: compares each sample with two anchor samples; the target is the anchor's "
        "Best-of-2. bond: rewards each sample by its quantile among the anchor's samples; the target is Best-of-n.",
    )
    n: int = Field(
        2,
        ge=2,
        description="N of the target, Best-of-N of the anchor (paper: 2 or 4 with a moving anchor; 4, 8 or 16 with a "
        "fixed one).",
    )
    beta: float = Field(
        0.5, ge=0, le=1, description="Weight of the backward KL; 1 - beta weighs the forward KL (paper: 0.5)."
    )
    gamma: float = Field(0.0, ge=0, description="Weight of the KL to the anchor (paper: 0 to 2).")
    anchor: Literal["ema", "periodic", "fixed"] = Field(
        "ema",
        description="Kind of anchor. ema: an exponential moving average of the policy. periodic: a copy of the policy, "
        "refreshed every `anchor_every` steps. fixed: the initial policy, so that the target never changes.",
    )
    anchor_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description=f"EMA rate per step, for `anchor: ema`; not set: {ANCHOR_RATE} (paper, 7B; 0.01 to 0.1 for 2B).",
    )
    anchor_every: int | None = Field(
        None,
        ge=1,
        description=f"Steps between refreshes, for `anchor: periodic`; not set: {ANCHOR_PERIOD} (paper, 7B; 1000 for "
        "XSum).",
    )
    quantile: Literal["samples", "classifier"] = Field(
        "samples",
        description="Quantile estimator, for `form: bond`. samples: counts among the anchor's samples. classifier: a "
        "model trained beside the policy (appendix B.1), which needs only n anchor samples per prompt.",
    )
    quantile_samples: int | None = Field(
        None,
        ge=1,
        description="Anchor samples per prompt that a quantile is counted among, for `quantile: samples`; not set: "
        f"{ANCHOR_SAMPLES} (paper), or n if beta is 0.",
    )
    quantile_learning_rate: float | None = Field(
        None,
        gt=0,
        description="Constant learning rate of the classifier, for `quantile: classifier`; not set: `learning_rate`.",
    )

    @property
    def anchor_samples_compared(self) -> int:
        """Return the number of anchor samples per prompt that a policy sample is compared with."""
        if self.form == "jbond" or self.quantile == "classifier":
            return self.n
        return self.quantile_samples or (ANCHOR_SAMPLES if self.beta else self.n)

    @property
    def completions_per_prompt(self) -> int:
        """Return the number of completions per prompt: one from the policy, the others from the anchor."""
        return 1 + max(self.n, self.anchor_samples_compared)

    @model_validator(mode="after")
    def _judged_as_the_form_does(self) -> "BondAlgorithm":
        asked = {"quantile": self.quantile == "classifier", **{name: bool(getattr(self, name)) for name in _QUANTILE}}
        stray = next((name for name, given in asked.items() if given), None)
        if self.form == "jbond" and self.n != 2:
            raise ValueError(f"found n {self.n}, but form jbond needs n 2: remove n, or set `form: bond`")
        if self.form == "jbond" and stray:
            raise ValueError(f"form jbond does not use a quantile: remove {stray}, or set `form: bond`")
        if self.quantile == "classifier" and self.beta == 0:
            raise ValueError("beta 0 imitates Best-of-n samples only and does not use a quantile: remove quantile")
        if self.quantile == "classifier" and self.quantile_samples:
            raise ValueError("quantile_samples needs `quantile: samples`, but quantile is classifier: remove one")
        if self.quantile == "samples" and self.quantile_learning_rate:
            raise ValueError(
                "quantile_learning_rate needs `quantile: classifier`, but quantile is samples: change one of the two"
            )
        return self

    @model_validator(mode="after")
    def _moves_as_the_anchor_does(self) -> "BondAlgorithm":
        for name, kind in (("anchor_rate", "ema"), ("anchor_every", "periodic")):
            if getattr(self, name) is not None and self.anchor != kind:
                raise ValueError(f"{name} needs `anchor: {kind}`, but anchor is {self.anchor}: remove one of the two")
        return self

    @property
    def passes_per_prompt(self) -> float:
        """Return the number of forward and backward passes per prompt.

        One each for the policy's sample and the anchor's best, one for scoring the policy's sample twice, and one for
        the classifier.
        """
        return 3 + (self.quantile == "classifier")

    @property
    def warns_of_ties(self) -> bool:
        """Return True for J-BOND, which receives no signal from ties."""
        return self.form == "jbond"

    def estimators(self) -> dict[str, str]:
        """Describe how the KL to the anchor and the log-quantile are estimated."""
        counted = f"c of k = {self.anchor_samples_compared} completions of the anchor are not better"
        learnt = "mean log p from a classifier of completions, in nats"
        counting = f"mean of log((c + 1/2) / (k + 1/2)), where {counted}, in nats"
        quantile = learnt if self.quantile == "classifier" else counting
        return {"kl_to_anchor": K1.format("anchor"), "log_quantile": quantile}

    @property
    def averages_policy(self) -> bool:
        """Return True if the anchor is a moving average of the policy."""
        return self.anchor == "ema"

    @property
    def warp_fault(self) -> str | None:
        """Return a message if the anchor or the quantile cannot be used inside WARP, else None.

        WARP supplies the anchor itself, and a classifier would start from scratch in each of its runs.
        """
        if self.anchor != "ema":
            return f"inside warp, the anchor is always WARP's moving average: remove `anchor: {self.anchor}`"
        if self.quantile == "classifier":
            return "inside warp, each run would train a new quantile classifier: set `quantile: samples`"
        return None

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Add the classifier, which has as many trained parameters as the policy."""
        beside = trained if self.quantile == "classifier" else 0
        return replace(super().costs(size, trained, context), trained_beside=beside)

    def check_algorithm(self, context: CheckContext) -> None:
        """Also refuse a classifier under DeepSpeed, which would not train it."""
        super().check_algorithm(context)
        if self.quantile == "classifier" and context.engine.deepspeed is not None:
            expected = "expected samples under engine.deepspeed, which would not train the classifier"
            context.add(("quantile",), f"found classifier, {expected}")

    def batch_fault(self, processes: int) -> str | None:
        """Also refuse more than one process when a classifier is trained."""
        if self.quantile == "classifier" and processes > 1:
            return f"`quantile: classifier` supports one process, but {processes} are running: set `quantile: samples`."
        return super().batch_fault(processes)


_QUANTILE = ("quantile_samples", "quantile_learning_rate")
