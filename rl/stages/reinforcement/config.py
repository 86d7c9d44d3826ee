"""Configuration of the `bond` and `reinforce` stages. Imports no torch."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from gemsmith.contracts.planning import CheckContext, Scoring
from gemsmith.contracts.stage import OutputKind
from gemsmith.policy.config import KeepingConfig, PolicyConfig
from gemsmith.policy.training_stage import TrainingStage
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.algorithms.rollout_config import RolloutConfig


class AlgorithmStage(TrainingStage, RolloutConfig, KeepingConfig):
    """Base of stages that run one algorithm; a stage kind also inherits from the algorithm's configuration."""

    entry: ClassVar[str] = "gemsmith.rl.stages.reinforcement.stage:run"
    produces: ClassVar[OutputKind] = "policy"

    policy: PolicyConfig | None = Field(None, description="Initial policy. Not set: the recipe's `policy`.")

    @property
    def results_version(self) -> int | str:
        """Return the version, with a mark where an anchor averages the products of adapters and not their factors."""
        return f"{type(self).version}, products" if self.averages_adapters else type(self).version

    def scorings(self) -> Sequence[Scoring]:
        """Return the data and rewards of the algorithm."""
        return (self.scoring(),)

    def check(self, context: CheckContext) -> None:
        """Report the problems that the algorithm finds."""
        self.check_algorithm(context)


class BondStage(BondAlgorithm, AlgorithmStage):
    """Best-of-N distillation as a stage."""

    version: ClassVar[int] = 3  # the order of the prompts does not depend on the number of processes


class ReinforceStage(ReinforceAlgorithm, AlgorithmStage):
    """REINFORCE as a stage."""

    version: ClassVar[int] = 3  # the order of the prompts does not depend on the number of processes
