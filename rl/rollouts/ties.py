"""Warning for runs where most completions of a prompt have equal rewards, from which J-BOND learns nothing."""

from collections.abc import Callable

STEPS = 5  # first steps of a run that are averaged
LIMIT = 0.5  # mean share of tied pairs above which the warning is printed


class TieWatch:
    """Monitor of the tie rate in the first `STEPS` steps of a run; it warns at most once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rates: list[float] = []

    def see(self, tie_rate: float) -> None:
        """Record one step's share of tied pairs, and warn after the last monitored step if the mean is too high."""
        if len(self._rates) == STEPS:
            return
        self._rates.append(tie_rate)
        mean = sum(self._rates) / len(self._rates)
        if len(self._rates) == STEPS and mean > LIMIT:
            self._say(
                f"{mean:.0%} of the pairs of completions of one prompt had equal rewards in the first {STEPS} steps, "
                "and J-BOND learns nothing from ties: use a finer reward (`partial: true` gives the share of passed "
                "tests), add a reward model to `rewards`, train with `kind: reinforce`, or set `form: bond`, which "
                "handles ties"
            )
