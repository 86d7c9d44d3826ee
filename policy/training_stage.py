"""Base class of stage kinds that train a policy. Imports no torch."""

from collections.abc import Sequence
from typing import ClassVar

from gemsmith.contracts.planning import ForecastContext, StageForecast, StageTraining
from gemsmith.contracts.stage import StageConfig
from gemsmith.policy.config import TrainingConfig
from gemsmith.policy.forecast import forecast_training


class TrainingStage(StageConfig, TrainingConfig):
    """A stage whose own fields are the settings of one training.

    A kind that holds or computes more than the trained policy overrides `TrainingConfig.costs`.
    """

    results: ClassVar[tuple[str, ...]] = ("output", "kept", "kept.json")

    def trainings(self) -> Sequence[StageTraining]:
        """Return the stage's own settings."""
        return (StageTraining(self),)

    def forecast(self, context: ForecastContext) -> StageForecast:
        """Return the forecast of one training."""
        return forecast_training(self, self.start, context)
