"""Length reward: 1 for a length within the range, falling to 0 outside it."""

from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import LengthReward
from gemsmith.rl.rewards.reward import Columns


class Length:
    """Length reward in [0, 1]; white space around a completion does not count.

    Tokens are not a unit, because rewards receive text.
    """

    def __init__(self, name: str, config: LengthReward, stage: Stage) -> None:
        self._config = config

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        unit = self._config.unit
        return [self._fit(len(text.split() if unit == "words" else text.strip())) for text in completions]

    def close(self) -> None:
        """See `Reward.close`."""

    def _fit(self, length: int) -> float:
        low, high = self._config.low, self._config.high
        below = 0 if low is None else low - length
        above = 0 if high is None else length - high
        beyond = max(below, above)
        if beyond <= 0:
            return 1.0
        return max(0.0, 1 - beyond / self._config.slack) if self._config.slack else 0.0
