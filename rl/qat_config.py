"""Configuration of quantisation-aware training. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from contracts.stage import OutputKind, StageConfig
from policy.config import PolicyConfig, TrainingConfig


class QatStage(StageConfig, TrainingConfig):
    """Quantisation-aware training: the quantised policy learns the unquantised one's targets (Gemma 3 report, 2.3).

    The report trains for about 5,000 steps. What comes out is on the format's grid, so that quantising it in an export
    changes nothing.
    """

    entry: ClassVar[str] = "rl.qat:run"
    produces: ClassVar[OutputKind] = "policy"

    kind: Literal["qat"]
    policy: PolicyConfig | None = Field(None, description="What to quantise; none: the recipe's policy.")
    teacher: PolicyConfig | None = Field(
        None, description="Whose targets to learn; none: the policy itself, unquantised, as the report has it."
    )
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
    sampled_logits: int | None = Field(
        None,
        ge=1,
        description="K, vocabulary entries drawn a token. None: 256 (Gemma 3), or the vocabulary if smaller.",
    )
    mode: Literal["gumbel_renorm", "multinomial_counts", "topk"] = Field(
        "gumbel_renorm", description="How entries are drawn, as in distillation."
    )
    temperature: float = Field(1.0, gt=0, description="Softmax temperature of the teacher.")
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
