"""Says so when most completions of a prompt have equal rewards, from which J-BOND learns nothing."""

from collections.abc import Callable

STEPS = 5
LIMIT = 0.5


class TieWatch:
    """Looks at the first few steps of a run, and speaks once or never."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rates: list[float] = []

    def see(self, tie_rate: float) -> None:
        """Take the share of tied pairs of one step."""
        if len(self._rates) == STEPS:
            return
        self._rates.append(tie_rate)
        mean = sum(self._rates) / len(self._rates)
        if len(self._rates) == STEPS and mean > LIMIT:
            self._say(
                f"{mean:.0%} of the pairs of completions of one prompt had equal rewards in {STEPS} steps, and J-BOND "
                "learns nothing from ties: take a finer reward (`partial: true` gives the share of passed tests), add "
                "a reward model to `rewards`, learn with `kind: reinforce`, or set `form: bond`, which counts ties"
            )
