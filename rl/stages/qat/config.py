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
    """Quantisation-aware training by distillation from the unquantised policy (Gemma 3 report, section 2.3).

    Without `teacher`, the teacher is the policy itself before quantisation, as in the report, which trains for about
    5,000 steps. A store of its targets saves the teacher's forward passes. The trained weights are on the format's
    grid, so that an export quantises them without further error.
    """

    entry: ClassVar[str] = "gemsmith.rl.stages.qat.stage:run"
    version: ClassVar[int] = 2  # weights half-way between two codes are spread before the training, targets are counts
    produces: ClassVar[OutputKind] = "policy"
    needs_teacher: ClassVar[bool] = False

    kind: Literal["qat"]
    policy: PolicyConfig | None = Field(None, description="Policy to quantise. Not set: the recipe's `policy`.")
    data: str = Field(description="Name of a data section with demonstrations like those the policy was trained on.")
    format: Literal["q4_0", "int4_channel", "sfp8"] = Field(
        description="Format of the attention and MLP matrices. q4_0: int4 in blocks of 32 (GGUF's Q4_0). int4_channel: "
        "int4 with one scale per output channel. sfp8: switched fp8."
    )
    embedding: Literal["f16", "q8_0", "format"] = Field(
        "f16",
        description="Format of the embedding, which is also the output head. f16: float16, as in Gemma 3's released "
        "Q4_0 files. q8_0: eight bits. format: the value of `format`.",
    )
    mode: Literal["gumbel_renorm", "multinomial_counts", "topk"] = Field(
        "multinomial_counts",
        description="How entries are sampled; see `distill`. The default is unbiased: sharpened targets would move the "
        "policy further from the unquantised one than rounding to eight bits does.",
    )
    held_out: int = Field(
        128, ge=1, description="Held-out demonstrations on which the KL to the unquantised policy is measured."
    )

    @model_validator(mode="after")
    def _whole_weights(self) -> "QatStage":
        if self.lora is not None:
            raise ValueError("qat trains the quantised weights themselves and does not support adapters: remove `lora`")
        if self.policy is not None and self.policy.dtype == "bfloat16":
            raise ValueError(
                "found dtype bfloat16, but qat needs float32 weights, since bfloat16 cannot represent its small "
                "updates: remove `dtype` from the policy"
            )
        return self

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Return the costs of the teachers, the unquantised policy and the quantised copy of the weights."""
        teachers = self.teacher_parameters(context)
        return TrainingCosts(frozen=teachers, copied=2 * size.parameters, teacher_flops=2.0 * teachers)
