"""Configuration of exports. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.policy.config import PolicyConfig

ExportFormat = Literal["transformers", "adapter", "gguf"]
GgufType = Literal["f16", "q8_0", "q4_0"]


class ExportStage(StageConfig):
    """A policy in formats that other tools load, each reloaded and compared before it counts as done."""

    entry: ClassVar[str] = "gemsmith.export.export_stage:run"
    version: ClassVar[int] = 2  # export.json says which formats there are
    produces: ClassVar[OutputKind] = "export"

    kind: Literal["export"]
    policy: PolicyConfig = Field(description="The policy to export.")
    base: PolicyConfig | None = Field(
        None, description="What the policy must differ from; none: the policy that its own stage started from."
    )
    formats: list[ExportFormat] = Field(
        ["transformers"],
        min_length=1,
        description="What to write. transformers: a folder. adapter: the LoRA adapter that the policy's stage trained, "
        "for peft, in `adapter/`. gguf: one file, for llama.cpp and what is built on it.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the transformers folder.")
    gguf: GgufType = Field(
        "f16",
        description="What a GGUF file stores matrices as. A policy of a qat stage of `format: q4_0` loses nothing by "
        "q4_0; others are rounded (post-training quantisation).",
    )
    gguf_embedding: GgufType | None = Field(
        None,
        description="What a GGUF file stores the embedding as; none: as the qat stage trained it, else f16 beside q4_0 "
        "(as Gemma 3's released files), and else the same as the matrices.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> "ExportStage":
        if twice := [name for name in self.formats if self.formats.count(name) > 1]:
            raise ValueError(f"formats names {twice[0]} more than once")
        asked = self.model_fields_set & {"gguf", "gguf_embedding"}
        if asked and "gguf" not in self.formats:
            raise ValueError(f"`{min(asked)}` is for the format gguf: add it to `formats`, or remove the field")
        return self
