"""Configuration of exports. Imports no torch."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gemsmith.contracts.planning import CheckContext, ForecastContext, StageForecast
from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.policy.config import PolicyConfig, TrainingConfig
from gemsmith.policy.forecast import START_SECONDS, WEIGHT_BYTES
from gemsmith.policy.origins import origin_of
from gemsmith.policy.sizes import has_own_head
from gemsmith.rl.stages.qat.config import QatStage

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

    def with_inherited(self, stages: Mapping[str, StageConfig]) -> StageConfig:
        """Return the export with its base: the policy that the exported one was trained from."""
        source = stages.get(self.policy.from_ or "")
        return self if self.base is not None or source is None else self.model_copy(update={"base": source.start})

    def check(self, context: CheckContext) -> None:
        """Report an adapter that does not exist, and a GGUF file that could not hold the policy."""
        origin = origin_of(self, context.stages)
        if "gguf" in self.formats and origin is not None and has_own_head(origin, context.root):
            context.add(
                ("formats", self.formats.index("gguf")),
                f"found gguf, but the head (lm_head) of {origin.name} is not tied to its embedding, as its config.json "
                "has tie_word_embeddings false, and llama.cpp reads Gemma 3 with a tied head only: leave gguf out",
            )
        source = context.stages.get(self.policy.from_ or "")
        if "gguf" in self.formats and self.gguf == "q4_0" and isinstance(source, QatStage) and source.format != "q4_0":
            expected = f'expected f16 or q8_0, as stage "{source.id}" trains for {source.format}'
            context.add(("gguf",), f"found q4_0, {expected}")
        if "adapter" in self.formats and (source is not None or self.policy.model == "tiny"):
            if isinstance(source, TrainingConfig) and source.lora is not None:
                return
            whose = "tiny, which has none" if source is None else f'stage "{source.id}", which trains without `lora`'
            place = self.formats.index("adapter")
            context.add(("formats", place), f"found adapter of {whose}: leave it out")

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of two policies in memory: the exported one, and the one that is read back."""
        size = context.size_of(self.policy)
        if size is None:
            return StageForecast()
        seconds = START_SECONDS if context.throughput is not None else None
        return StageForecast(size, None, float(2 * WEIGHT_BYTES * size.parameters), seconds)
