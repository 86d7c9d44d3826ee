"""Configuration of supervised fine-tuning. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from gemsmith.contracts.stage import OutputKind
from gemsmith.policy.config import KeepingConfig, PolicyConfig
from gemsmith.policy.training_stage import TrainingStage


class SftStage(TrainingStage, KeepingConfig):
    """Supervised fine-tuning on demonstrations with TRL's SFTTrainer; the loss covers completion tokens only."""

    entry: ClassVar[str] = "gemsmith.rl.stages.sft.stage:run"
    version: ClassVar[int] = 2  # the order of the examples does not depend on the number of processes
    produces: ClassVar[OutputKind] = "policy"
    shares_sequences: ClassVar[bool] = True

    kind: Literal["sft"]
    policy: PolicyConfig | None = Field(None, description="Initial policy. Not set: the recipe's `policy`.")
    data: str = Field(description="Name of a data section with demonstrations.")
