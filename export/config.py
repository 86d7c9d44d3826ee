"""Configuration of exports. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from contracts.stage import OutputKind, StageConfig
from policy.config import PolicyConfig


class ExportStage(StageConfig):
    """A policy as a folder that other tools load, reloaded and compared before it counts as done."""

    entry: ClassVar[str] = "export.export_stage:run"
    produces: ClassVar[OutputKind] = "export"

    kind: Literal["export"]
    policy: PolicyConfig = Field(description="The policy to export.")
    base: PolicyConfig | None = Field(
        None, description="What the policy must differ from; none: the policy that its own stage started from."
    )
    formats: list[Literal["transformers"]] = Field(["transformers"], min_length=1, description="What to write.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the exported weights.")
