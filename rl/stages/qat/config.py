"""Configuration of quantisation-aware training. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import ForecastContext, ModelSize
from gemsmith.contracts.stage import OutputKind
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.forecast import TrainingCosts
from gemsmith.policy.training_stage import TrainingStage
from gemsmith.rl.distillation.config import TargetsConfig
from gemsmith.rl.teachers.taught_stage import TaughtStage


class QatStage(TaughtStage, TrainingStage, TargetsConfig):
    """Quantisation-aware training: the quantised policy learns the unquantised one's targets (Gemma 3 report, 2.3).

    Without a teacher the targets are the policy's own before it was quantised, as in the report, which trains for about
    5,000 steps; a store of them saves asking in each step. What comes out is on the format's grid, so that quantising
    it in an export changes nothing.
    """

    entry: ClassVar[str] = "gemsmith.rl.stages.qat.stage:run"
    version: ClassVar[int] = 2  # weights half-way between two codes are spread before the training, targets are counts
    produces: ClassVar[OutputKind] = "policy"
    needs_teacher: ClassVar[bool] = False

    kind: Literal["qat"]
    policy: PolicyConfig | None = Field(None, description="What to quantise; none: the recipe's policy.")
    data: str = Field(description="Name of a data section with demonstrations like those the policy was trained on.")
    format: Literal["q4_0", "int4_channel", "sfp8"] = Field(
        description="Of the matrices of attention and MLP: int4 by blocks of 32 (GGUF's Q4_0), int4 with a step for "
        "each output channel, or switched fp8."
    )
    embedding: Literal["f16", "q8_0", "format"] = Field(
        "f16",
        description="Of the embedding, which is the head too: float16 as in the Q4_0 files that Gemma 3 was released "
        "in, eight bits, or the same format as the rest.",
    )
    mode: Literal["gumbel_renorm", "multinomial_counts", "topk"] = Field(
        "multinomial_counts",
        description="How entries are drawn. By counts, which is unbiased: the policy is to be what it was, and targets "
        "that are sharper than it is move it further than rounding to eight bits does.",
    )
    held_out: int = Field(
        128, ge=1, description="Held-out demonstrations on which the KL to the unquantised policy is measured."
    )

    @model_validator(mode="after")
    def _whole_weights(self) -> "QatStage":
        if self.lora is not None:
            raise ValueError("qat trains the weights that are quantised, and no adapters beside them: remove `lora`")
        if self.policy is not None and self.policy.dtype == "bfloat16":
            raise ValueError(
                "qat keeps its weights in float32: steps of training are smaller than bfloat16 tells apart; remove "
                "`dtype` from the policy"
            )
        return self

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Return the costs of teachers, the unquantised policy, and the quantised copy of the weights."""
        teachers = self.teacher_parameters(context)
        return TrainingCosts(frozen=teachers, copied=2 * size.parameters, teacher_flops=2.0 * teachers)
