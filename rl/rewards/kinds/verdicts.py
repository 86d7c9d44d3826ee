"""What every reward that rests on verdicts has in common: it is late in one way, and infrastructure faults are no 0."""

from collections.abc import Callable, Sequence

from gemsmith.contracts.errors import RunError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.reward import sample
from gemsmith.sandboxes.verdict import OverdueError, Status, Verdict


class Verdicts:
    """Asks a verifier for one reward. `faults` counts the completions that could not be judged, tried twice each.

    Args:
        label: how messages name the reward, such as "reward solved (code)".
        what: what a late call waited for, such as "comparisons".
        time_limit: seconds that one call may take.
        stage: whom to tell of faults.
    """

    def __init__(self, label: str, what: str, time_limit: float, stage: Stage) -> None:
        self.faults = 0
        self._label, self._what, self._time_limit, self._stage = label, what, time_limit, stage

    def ask(
        self,
        verify: Callable[[float], list[Verdict]],
        asked: Sequence[int],
        prompts: Sequence[str],
        completions: Sequence[str],
    ) -> list[Verdict | None]:
        """A verdict for each of the samples `asked`; None where the machine, not the completion, was at fault.

        Args:
            verify: given the seconds there are, answers with one verdict for each of `asked`.
            asked: which samples of the batch.
            prompts: of the whole batch.
            completions: of the whole batch.

        Raises:
            RunError: it was late, or not one of them could be judged.
        """
        try:
            verdicts = verify(self._time_limit)
        except OverdueError as error:
            raise RunError(
                f"{self._label} was not done within its time_limit of {self._time_limit:g} s: it waited for "
                f"{error.missing} of {len(asked)} {self._what}, the first of them "
                f"{sample(asked[error.index], prompts, completions)}; raise the reward's `time_limit`."
            ) from error
        self._tell_faults(verdicts)
        return [None if verdict.status is Status.INFRASTRUCTURE_FAULT else verdict for verdict in verdicts]

    def _tell_faults(self, verdicts: Sequence[Verdict]) -> None:
        faults = [verdict for verdict in verdicts if verdict.status is Status.INFRASTRUCTURE_FAULT]
        if not faults:
            return
        self.faults += len(faults)
        if len(faults) == len(verdicts):
            raise RunError(
                f"{self._label} could not verify any of {len(faults)} completions, tried twice each: "
                f"{faults[0].reason}."
            )
        self._stage.say(
            f"{self._label}: {len(faults)} of {len(verdicts)} completions could not be verified, tried twice each "
            f"({faults[0].reason}); they have no reward."
        )
