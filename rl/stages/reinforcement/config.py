"""Configuration of the `bond` and `reinforce` stages. Imports no torch."""

from typing import ClassVar

from pydantic import Field

from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.policy.config import KeepingConfig, PolicyConfig
from gemsmith.rl.algorithms.config import BondAlgorithm, ReinforceAlgorithm


class BondStage(StageConfig, BondAlgorithm, KeepingConfig):
    """Best-of-N distillation as a stage."""

    entry: ClassVar[str] = "gemsmith.rl.stages.reinforcement.stage:run"
    version: ClassVar[int] = 3  # the order of the prompts does not depend on the number of processes
    produces: ClassVar[OutputKind] = "policy"

    policy: PolicyConfig | None = Field(None, description="Where to start; none: the recipe's policy.")


class ReinforceStage(StageConfig, ReinforceAlgorithm, KeepingConfig):
    """REINFORCE as a stage."""

    entry: ClassVar[str] = "gemsmith.rl.stages.reinforcement.stage:run"
    version: ClassVar[int] = 3  # the order of the prompts does not depend on the number of processes
    produces: ClassVar[OutputKind] = "policy"

    policy: PolicyConfig | None = Field(None, description="Where to start; none: the recipe's policy.")
